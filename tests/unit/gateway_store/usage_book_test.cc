// The usage book: sums per period, entries counted once, all or nothing when the disk is full, and
// crashes at any batch against plain sums. Method: a file in a fresh folder, reopened as a restart.
#include "gateway/store/usage_book.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <random>

#include "gateway/core/ledger_limits.h"

namespace sluice::gw {
namespace {

constexpr std::int64_t kNoon = 1'700'049'600;  // 2023-11-15 12:00:00 UTC

class UsageFile : public ::testing::Test {
 protected:
  UsageFile() {
    std::string name = std::filesystem::temp_directory_path() / "sluice-usage-XXXXXX";
    folder_ = ::mkdtemp(name.data());
    path_ = folder_ + "/store.db";
  }
  ~UsageFile() override { std::filesystem::remove_all(folder_); }
  UsageBook open() { return std::move(*UsageBook::open(path_)); }
  std::string folder_, path_;
};

UsageEntry entry(std::uint64_t sequence, std::string_view tenant, std::int64_t unix_s) {
  UsageEntry made;
  made.sequence = sequence;
  made.account = account_digest(tenant, "key");
  made.model = model_digest("brook");
  made.admitted_unix_ms = unix_s * 1000;
  made.requests = 1;
  made.prompt = 10;
  made.cached = 4;
  made.output = 3;
  made.cost = 1000;
  return made;
}

std::uint64_t output_of(UsageBook& book, UsagePeriod period) {
  std::uint64_t sum = 0;
  for (const UsageSum& each : *book.sums(period, 0)) sum += each.output;
  return sum;
}

TEST_F(UsageFile, SumsByAccountModelAndPeriod) {
  {
    UsageBook book = open();
    const AccountName name{account_digest("blue", "key"), "blue", "first"};
    ASSERT_TRUE(book.name_accounts(std::span(&name, 1)));
    const std::vector<UsageEntry> entries{
        entry(1, "blue", kNoon), entry(2, "blue", kNoon), entry(3, "blue", kNoon + 61),
        entry(4, "blue", kNoon + 86'400), entry(5, "green", kNoon)};
    EXPECT_EQ(*book.add(entries, kNoon + 61), 5u);
  }
  UsageBook book = open();
  const auto minutes = *book.sums(UsagePeriod::minute, 0);
  ASSERT_EQ(minutes.size(), 4u);
  EXPECT_EQ(minutes[0].tenant, "blue");
  EXPECT_EQ(minutes[0].account, account_digest("blue", "key"));
  EXPECT_EQ(minutes[0].model, model_digest("brook"));
  EXPECT_EQ(minutes[0].start_unix_s, kNoon);
  EXPECT_EQ(minutes[0].requests, 2u);
  EXPECT_EQ(minutes[0].prompt, 20u);
  EXPECT_EQ(minutes[0].cached, 8u);
  EXPECT_EQ(minutes[0].output, 6u);
  EXPECT_EQ(minutes[0].cost, 2000u);
  EXPECT_EQ(minutes[1].tenant, "");
  EXPECT_EQ(book.sums(UsagePeriod::day, 0)->size(), 3u);
  EXPECT_EQ(book.sums(UsagePeriod::day, kNoon)->size(), 1u);
  const auto months = *book.sums(UsagePeriod::month, 0);
  ASSERT_EQ(months.size(), 2u);
  EXPECT_EQ(months[0].requests + months[1].requests, 5u);
}

TEST_F(UsageFile, SecondsAreRoundedUpAndForgotten) {
  UsageBook book = open();
  UsageEntry late = entry(1, "blue", kNoon);
  late.admitted_unix_ms += 1;
  ASSERT_TRUE(book.add(std::span(&late, 1), kNoon));
  EXPECT_EQ(book.sums(UsagePeriod::second, 0)->at(0).start_unix_s, kNoon + 1);
  ASSERT_TRUE(book.add_new({}, kNoon + 1000));
  EXPECT_TRUE(book.sums(UsagePeriod::second, 0)->empty());
  EXPECT_EQ(output_of(book, UsagePeriod::minute), 3u);
}

TEST_F(UsageFile, AnEntryCountsOnceAlsoLongAfterItWasSettled) {
  const UsageEntry once = entry(9, "blue", kNoon);
  UsageBook book = open();
  EXPECT_EQ(*book.add(std::span(&once, 1), kNoon), 1u);
  UsageBook again = open();
  EXPECT_EQ(*again.add(std::span(&once, 1), kNoon + 100'000), 0u);
  // Its slot was still not free when this process died, too.
  EXPECT_EQ(*again.add(std::span(&once, 1), kNoon + 100'001), 0u);
  EXPECT_EQ(output_of(again, UsagePeriod::day), 3u);
  ASSERT_TRUE(again.forget_ids());  // a new journal gives the same ids to other sequences
  EXPECT_EQ(*again.add(std::span(&once, 1), kNoon), 1u);
}

TEST_F(UsageFile, IdsAreKeptForEightBatchesAndTwoMinutes) {
  UsageBook book = open();
  const auto add_each = [&](std::uint64_t first, std::uint64_t last, std::int64_t now_s) {
    for (std::uint64_t i = first; i <= last; ++i) {
      const UsageEntry one = entry(i, "blue", kNoon);
      ASSERT_TRUE(book.add_new(std::span(&one, 1), now_s));
    }
  };
  const auto is_known = [&](std::uint64_t sequence) {
    const UsageEntry one = entry(sequence, "blue", kNoon);
    return *open().add(std::span(&one, 1), kNoon) == 0;
  };
  add_each(1, 1, kNoon);
  add_each(2, 8, kNoon + 1000);  // a clock that jumps
  EXPECT_TRUE(is_known(1));      // and makes a batch of its own
  add_each(10, 30, kNoon + 1050);
  EXPECT_FALSE(is_known(1));
  EXPECT_TRUE(is_known(2));
  add_each(40, 60, kNoon + 2000);
  EXPECT_FALSE(is_known(3));
  EXPECT_TRUE(is_known(60));
}

TEST_F(UsageFile, AFullDiskChangesNothingAndRoomMendsIt) {
  UsageBook book = open();
  std::vector<UsageEntry> entries;
  for (std::uint64_t i = 1; i <= 2000; ++i) {
    entries.push_back(entry(i, "tenant" + std::to_string(i), kNoon));
  }
  const auto former = std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit tight = before;
  tight.rlim_cur = std::filesystem::file_size(path_ + "-wal") + 8192;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &tight), 0);
  const auto refused = book.add(entries, kNoon);
  const auto refused_again = book.add(entries, kNoon);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, former);
  EXPECT_FALSE(refused);
  EXPECT_FALSE(refused_again);
  EXPECT_EQ(output_of(book, UsagePeriod::day), 0u);
  EXPECT_EQ(*book.add(entries, kNoon), 2000u);
  EXPECT_EQ(output_of(book, UsagePeriod::day), 6000u);
}

TEST_F(UsageFile, AJournalSlotIsBoundedHoweverItLooks) {
  Journal::Recovered slot{};
  slot.entry.sequence = SequenceId(3);
  slot.entry.prompt_tokens = 20;
  slot.entry.reserved_tokens = 120;
  slot.entry.price_input = 3;
  slot.entry.price_cached = 1;
  slot.entry.price_output = 5;
  slot.accepted = 7;
  slot.cached = 16;
  EXPECT_EQ(usage_of(slot).cost, 4u * 3 + 16 + 7 * 5);
  EXPECT_EQ(usage_in_full(slot).output, 100u);
  EXPECT_EQ(usage_in_full(slot).cost, 20u * 3 + 100 * 5);
  slot.cached = ~0u;
  slot.accepted = ~0u;
  slot.entry.price_output = ~0ull;
  slot.entry.admitted_unix_ms = ~0ull;
  const UsageEntry hostile = usage_of(slot);
  EXPECT_EQ(hostile.cached, 20u);
  EXPECT_LE(hostile.cost, kAmountMax);
  UsageBook book = open();
  EXPECT_EQ(*book.add(std::span(&hostile, 1), kNoon), 1u);
}

// Batches are cut at random; after each the process may die, with or without having freed the
// journal's slots, so that any of the last entries comes again.
TEST_F(UsageFile, PropertyRepeatedBatchesAndRestartsEqualPlainSums) {
  const char* const given = std::getenv("TEST_SEED");
  const unsigned seed = given != nullptr ? static_cast<unsigned>(std::atoi(given)) : 20'231'115u;
  SCOPED_TRACE("TEST_SEED=" + std::to_string(seed));
  std::mt19937 random(seed);
  const auto below = [&](std::uint32_t n) { return static_cast<std::uint32_t>(random() % n); };
  std::map<std::uint64_t, std::uint64_t> output;  // by sequence
  std::vector<UsageEntry> recent;                 // slots that may still be live
  std::uint64_t next = 1;
  std::int64_t now = kNoon;
  std::optional<UsageBook> book(open());
  for (int round = 0; round < 60; ++round) {
    std::vector<UsageEntry> batch;
    for (const UsageEntry& old : recent) {
      if (below(3) == 0) batch.push_back(old);
    }
    recent.clear();
    for (std::uint32_t i = below(20); i > 0; --i) {
      UsageEntry fresh = entry(next++, below(2) == 0 ? "blue" : "green", now - below(90));
      fresh.output = below(1000);
      output[fresh.sequence] = fresh.output;
      batch.push_back(fresh);
    }
    std::shuffle(batch.begin(), batch.end(), random);
    ASSERT_TRUE(book->add(batch, now));
    recent = batch;
    now += below(40);
    if (below(4) == 0) {
      book.reset();
      book.emplace(open());
    }
    std::uint64_t expected = 0;
    for (const auto& [sequence, tokens] : output) expected += tokens;
    ASSERT_EQ(output_of(*book, UsagePeriod::minute), expected);
    ASSERT_EQ(output_of(*book, UsagePeriod::day), expected);
    ASSERT_EQ(output_of(*book, UsagePeriod::month), expected);
  }
}

}  // namespace
}  // namespace sluice::gw
