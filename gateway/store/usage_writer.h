// UsageWriter: the store thread. The decision thread pushes what was settled into a bounded queue
// and later asks how much of it is durable; it never waits for the disk.
//
//   decision thread:  try_push ... try_push        num_durable() -> free that many journal slots
//   store thread:     gather (half a second, or kUsageBatchReady) -> one transaction -> num_durable
//
// Entries become durable in the order in which they were pushed. When a transaction fails (disk
// full, file broken) the batch is kept and tried again each kRetryTime: is_failing() until one
// passes; nothing is dropped. The caller keeps an entry's journal slot live until it is durable, so
// that a kill at any moment loses nothing.
// Thread rule: one thread calls everything but the hooks, which run on the store thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "gateway/store/usage_book.h"
#include "shared/clock.h"

namespace sluice::gw {

// A transaction costs as much as a hundred entries: the longer it gathers, the less a request pays.
// The journal keeps what waits.
inline constexpr Duration kUsageGatherTime = std::chrono::milliseconds(500);
inline constexpr std::size_t kUsageBatchReady = 2048;  // waiting entries: written at once
inline constexpr Duration kUsageRetryTime = std::chrono::milliseconds(500);
inline constexpr std::size_t kUsageBatchMax = 4096;  // entries of one transaction

struct UsageWriterOptions {
  Duration gather_time = kUsageGatherTime;
  // Hooks; each may be empty.
  std::function<void(const Error&)> failed;  // the first failure of a row
  std::function<void()> recovered;           // a transaction passed again
  std::function<void()> written;             // num_durable() grew
};

class UsageWriter {
 public:
  // `capacity`: most entries that are pushed and not durable.
  UsageWriter(UsageBook book, std::size_t capacity, UsageWriterOptions options);
  ~UsageWriter();
  UsageWriter(const UsageWriter&) = delete;
  UsageWriter& operator=(const UsageWriter&) = delete;

  bool try_push(const UsageEntry& entry);  // false: `capacity` are waiting. Allocates nothing
  void name_accounts(std::vector<AccountName> names);  // with the next batch
  // Writes what is left, once, and ends the thread. Nothing is pushed afterwards.
  void stop();
  std::uint64_t num_pushed() const { return pushed_.load(std::memory_order_relaxed); }
  std::uint64_t num_durable() const { return durable_.load(std::memory_order_acquire); }
  std::uint64_t num_failures() const { return failures_.load(std::memory_order_relaxed); }
  bool is_failing() const { return is_failing_.load(std::memory_order_relaxed); }

 private:
  static constexpr std::uint64_t kAwake = ~std::uint64_t{0};
  void run();
  bool has_work();
  std::uint64_t num_waiting() const { return num_pushed() - num_durable(); }
  bool write_batch();  // false: it failed and stays
  bool write_names();
  void note_failure(const Error& error);
  bool gather();              // true: stopping
  bool pause(Duration time);  // likewise

  UsageBook book_;
  UsageWriterOptions options_;
  const std::size_t ready_;                // so many waiting entries are not gathered any longer
  std::vector<UsageEntry> ring_;           // [pushed mod size]
  std::vector<UsageEntry> batch_;          // store thread
  std::atomic<std::uint64_t> pushed_{0};   // release after the entry; pairs with run()'s acquire
  std::atomic<std::uint64_t> durable_{0};  // release after the commit; pairs with num_durable()
  std::atomic<std::uint64_t> failures_{0};
  std::atomic<bool> is_failing_{false};
  // The thread sleeps until so many were pushed. seq_cst with pushed_: no push is slept through.
  std::atomic<std::uint64_t> wake_at_{kAwake};
  std::mutex mutex_;  // of sleeping, names and stopping; never held while writing
  std::condition_variable wake_;
  std::vector<AccountName> names_;      // guarded by mutex_
  std::atomic<bool> has_names_{false};  // seq_cst, as pushed_
  bool is_stopping_ = false;            // guarded by mutex_
  std::thread thread_;
};

}  // namespace sluice::gw
