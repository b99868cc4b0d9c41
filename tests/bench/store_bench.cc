// What settling costs: one request's life in journal and usage store (open a slot, accept four
// times, settle, be stored, free the slot) against the same without a store, in CPU microseconds of
// the whole process at a given rate, with 1, 1,000 and 100,000 tenants picked at random. The two
// are measured in turns. Goal: at most 10 us; tests/bench/run_http.py --only rate has the share of
// a request's CPU. Usage: store_bench [repeats]
#include <stdlib.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gateway/link/settled_slots.h"
#include "shared/check.h"
#include "shared/random.h"

namespace sluice::gw {
namespace {

constexpr std::uint32_t kSlots = 32768;
constexpr std::uint64_t kRequests = 4000;  // of one measurement

double cpu_us() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) / 1e3;
}

enum class Store : std::uint8_t { without, with };

// One journal and one book; the book is as large as its tenants made it before.
class Gateway {
 public:
  Gateway(const std::string& folder, const std::vector<AccountDigest>& accounts, Store store)
      : accounts_(accounts) {
    const std::string name = folder + (store == Store::with ? "/with" : "/without");
    std::vector<Journal::Recovered> left;
    auto file = Journal::create_file((name + ".journal").c_str(), kSlots);
    CHECK(file.has_value());
    auto journal = Journal::open(std::move(*file), left);
    CHECK(journal.has_value());
    journal_ = std::make_unique<Journal>(std::move(*journal));
    if (store == Store::without) return;
    auto book = UsageBook::open(name + ".db");
    CHECK(book.has_value());
    settled_.set_writer(
        std::make_unique<UsageWriter>(std::move(*book), SettledSlots::writer_capacity(*journal_),
                                      UsageWriterOptions{}),
        *journal_);
  }
  ~Gateway() { settled_.stop(*journal_); }

  void live(std::uint64_t i) {
    JournalEntry entry{};
    entry.request = RequestId{journal_->take_id()};
    entry.sequence = SequenceId{journal_->take_id()};
    entry.prompt_tokens = 200;
    entry.reserved_tokens = 456;
    entry.admitted_unix_ms =
        static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(
                                       std::chrono::system_clock::now().time_since_epoch())
                                       .count());
    entry.tenant_key = accounts_[mix64(i) % accounts_.size()];
    entry.model_key = 7;
    entry.price_output = 20;
    const auto slot = journal_->try_open_slot(entry);
    CHECK(slot.has_value());
    for (std::uint32_t accepted = 10; accepted <= 40; accepted += 10)
      journal_->accept(*slot, accepted);
    settled_.settle(*journal_, *slot);
  }
  void wait() {
    while (settled_.num_waiting() > 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      settled_.free_durable(*journal_);
    }
  }

 private:
  const std::vector<AccountDigest>& accounts_;
  std::unique_ptr<Journal> journal_;
  SettledSlots settled_;
};

// CPU microseconds per request at so many requests a second, in ticks of a millisecond.
double measure(Gateway& gateway, std::uint64_t per_second, std::uint64_t seed) {
  const std::uint64_t per_tick = std::max<std::uint64_t>(per_second / 1000, 1);
  const double start = cpu_us();
  auto next = std::chrono::steady_clock::now();
  for (std::uint64_t i = 0; i < kRequests; ++i) {
    if (i % per_tick == 0) std::this_thread::sleep_until(next += std::chrono::milliseconds(1));
    gateway.live(seed * kRequests + i);
  }
  gateway.wait();
  return (cpu_us() - start) / kRequests;
}

void report(const char* what, std::vector<double> values) {
  std::sort(values.begin(), values.end());
  std::printf("  %-32s %7.2f us (%.2f .. %.2f)\n", what, values[values.size() / 2], values.front(),
              values.back());
}

void run(const std::string& folder, std::uint32_t num_tenants, int repeats) {
  std::vector<AccountDigest> accounts;
  for (std::uint32_t i = 0; i < num_tenants; ++i)
    accounts.push_back(account_digest("tenant-" + std::to_string(i), "key"));
  Gateway without(folder, accounts, Store::without), with(folder, accounts, Store::with);
  for (const std::uint64_t per_second : {1000, 10'000}) {
    std::vector<double> plain, stored, difference;
    for (int i = 0; i < repeats; ++i) {
      const auto seed = static_cast<std::uint64_t>(i);
      plain.push_back(measure(without, per_second, seed));
      stored.push_back(measure(with, per_second, seed));
      difference.push_back(stored.back() - plain.back());
    }
    std::printf("%u tenants, %llu requests/s, CPU per request\n", num_tenants,
                static_cast<unsigned long long>(per_second));
    report("journal alone", plain);
    report("journal and store", stored);
    report("the store", difference);
  }
}

}  // namespace
}  // namespace sluice::gw

int main(int argc, char** argv) {
  const int repeats = argc > 1 ? std::max(1, std::atoi(argv[1])) : 5;
  for (const std::uint32_t tenants : {1u, 1000u, 100'000u}) {
    std::string folder = std::filesystem::temp_directory_path() / "sluice-store-bench-XXXXXX";
    CHECK(::mkdtemp(folder.data()) != nullptr);
    sluice::gw::run(folder, tenants, repeats);
    std::filesystem::remove_all(folder);
  }
  return 0;
}
