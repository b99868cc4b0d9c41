// The store thread: entries become durable in order, a full disk stops it without losing any and
// it recovers by itself, the queue is bounded, stopping writes what is left.
// Method: a real thread and file; waits are for what must happen, bounded by the test's time limit.
#include "gateway/store/usage_writer.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

namespace sluice::gw {
namespace {

class WriterFile : public ::testing::Test {
 protected:
  WriterFile() {
    std::string name = std::filesystem::temp_directory_path() / "sluice-writer-XXXXXX";
    folder_ = ::mkdtemp(name.data());
    path_ = folder_ + "/store.db";
  }
  ~WriterFile() override { std::filesystem::remove_all(folder_); }
  UsageBook open() { return std::move(*UsageBook::open(path_)); }
  std::uint64_t stored() {
    UsageBook book = open();
    std::uint64_t sum = 0;
    for (const UsageSum& each : *book.sums(UsagePeriod::day, 0)) sum += each.output;
    return sum;
  }
  std::string folder_, path_;
};

UsageWriterOptions quick() {
  UsageWriterOptions options;
  options.gather_time = std::chrono::milliseconds(10);
  return options;
}

UsageEntry entry(std::uint64_t sequence) {
  UsageEntry made;
  made.sequence = sequence;
  made.account = account_digest("blue", std::to_string(sequence));
  made.admitted_unix_ms = 1'700'049'600'000;
  made.output = 1;
  return made;
}

template <class Condition>
void wait_for(Condition is_met) {
  while (!is_met()) std::this_thread::yield();
}

TEST_F(WriterFile, WritesWhatWasPushedAndSaysSo) {
  UsageWriter writer(open(), 64, quick());
  for (std::uint64_t i = 1; i <= 10; ++i) ASSERT_TRUE(writer.try_push(entry(i)));
  wait_for([&] { return writer.num_durable() == 10; });
  EXPECT_EQ(stored(), 10u);
  ASSERT_TRUE(writer.try_push(entry(11)));  // it sleeps now, or is about to
  wait_for([&] { return writer.num_durable() == 11; });
  EXPECT_FALSE(writer.is_failing());
}

TEST_F(WriterFile, GathersUntilThereIsEnough) {
  UsageWriterOptions options;
  options.gather_time = std::chrono::hours(1);
  std::atomic<int> num_written{0};
  options.written = [&] { ++num_written; };
  UsageWriter writer(open(), 800, options);
  for (std::uint64_t i = 1; i <= 99; ++i) ASSERT_TRUE(writer.try_push(entry(i)));
  EXPECT_EQ(writer.num_durable(), 0u);
  ASSERT_TRUE(writer.try_push(entry(100)));  // an eighth of what may wait
  wait_for([&] { return writer.num_durable() == 100; });
  ASSERT_TRUE(writer.try_push(entry(101)));
  writer.stop();  // gathers no longer
  EXPECT_EQ(writer.num_durable(), 101u);
  EXPECT_EQ(num_written, 2);
  EXPECT_EQ(stored(), 101u);
}

TEST_F(WriterFile, StoppingWritesWhatIsLeft) {
  {
    UsageWriter writer(open(), 10'000, quick());
    for (std::uint64_t i = 1; i <= 5'000; ++i) ASSERT_TRUE(writer.try_push(entry(i)));
  }
  EXPECT_EQ(stored(), 5'000u);
}

TEST_F(WriterFile, AFullDiskBlocksNobodyLosesNothingAndPasses) {
  std::atomic<int> num_failed{0}, num_recovered{0};
  UsageWriterOptions options = quick();
  options.failed = [&](const Error& error) {
    EXPECT_FALSE(error.detail.empty());
    ++num_failed;
  };
  options.recovered = [&] { ++num_recovered; };
  const auto former = std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  {
    UsageWriter writer(open(), 1000, options);
    rlimit tight = before;
    tight.rlim_cur = 4096;
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &tight), 0);
    for (std::uint64_t i = 1; i <= 1000; ++i) ASSERT_TRUE(writer.try_push(entry(i)));
    EXPECT_FALSE(writer.try_push(entry(1001)));
    wait_for([&] { return writer.is_failing(); });
    EXPECT_EQ(writer.num_durable(), 0u);
    wait_for([&] { return writer.num_failures() >= 2; });  // it tries again
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
    wait_for([&] { return writer.num_durable() == 1000; });
    wait_for([&] { return num_recovered == 1; });
    EXPECT_TRUE(writer.try_push(entry(1001)));
  }
  std::signal(SIGXFSZ, former);
  EXPECT_EQ(num_failed, 1);
  EXPECT_EQ(stored(), 1001u);
}

}  // namespace
}  // namespace sluice::gw
