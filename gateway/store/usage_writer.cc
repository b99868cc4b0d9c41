// UsageWriter: a ring of entries, one thread behind it.
#include "gateway/store/usage_writer.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

#include "shared/check.h"

namespace sluice::gw {
namespace {

std::int64_t unix_now_s() {
  const auto since = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(since).count();
}

}  // namespace

UsageWriter::UsageWriter(UsageBook book, std::size_t capacity, UsageWriterOptions options)
    : book_(std::move(book)),
      options_(std::move(options)),
      ready_(std::clamp<std::size_t>(capacity / 8, 1, kUsageBatchReady)),
      ring_(capacity) {
  CHECK(capacity > 0);
  batch_.reserve(std::min(capacity, kUsageBatchMax));
  thread_ = std::thread([this] { run(); });
  ::pthread_setname_np(thread_.native_handle(), "usage-writer");
}

UsageWriter::~UsageWriter() {
  stop();
}

void UsageWriter::stop() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

bool UsageWriter::try_push(const UsageEntry& entry) {
  const std::uint64_t at = pushed_.load(std::memory_order_relaxed);
  if (at - durable_.load(std::memory_order_acquire) >= ring_.size()) return false;
  ring_[at % ring_.size()] = entry;
  pushed_.store(at + 1, std::memory_order_seq_cst);
  if (at + 1 >= wake_at_.load(std::memory_order_seq_cst)) {
    // The lock orders this with the sleeper's check, so that the wake-up is not lost.
    { const std::lock_guard lock(mutex_); }
    wake_.notify_one();
  }
  return true;
}

void UsageWriter::name_accounts(std::vector<AccountName> names) {
  if (names.empty()) return;
  {
    const std::lock_guard lock(mutex_);
    names_.insert(names_.end(), std::make_move_iterator(names.begin()),
                  std::make_move_iterator(names.end()));
    has_names_.store(true, std::memory_order_seq_cst);
  }
  wake_.notify_one();
}

// While more comes that can share a transaction.
bool UsageWriter::gather() {
  std::unique_lock lock(mutex_);
  const std::uint64_t enough = durable_.load(std::memory_order_relaxed) + ready_;
  wake_at_.store(enough, std::memory_order_seq_cst);
  wake_.wait_for(lock, options_.gather_time,
                 [&] { return is_stopping_ || pushed_.load(std::memory_order_seq_cst) >= enough; });
  wake_at_.store(kAwake, std::memory_order_seq_cst);
  return is_stopping_;
}

bool UsageWriter::pause(Duration time) {
  std::unique_lock lock(mutex_);
  return wake_.wait_for(lock, time, [this] { return is_stopping_; });
}

bool UsageWriter::has_work() {
  return has_names_.load(std::memory_order_seq_cst) ||
         pushed_.load(std::memory_order_seq_cst) != durable_.load(std::memory_order_relaxed);
}

void UsageWriter::note_failure(const Error& error) {
  failures_.fetch_add(1, std::memory_order_relaxed);
  if (!is_failing_.exchange(true) && options_.failed) options_.failed(error);
}

bool UsageWriter::write_names() {
  if (!has_names_.load(std::memory_order_seq_cst)) return true;
  std::vector<AccountName> names;
  {
    const std::lock_guard lock(mutex_);
    names.swap(names_);
    has_names_.store(false, std::memory_order_seq_cst);
  }
  const Result<void> named = book_.name_accounts(names);
  if (named) return true;
  note_failure(named.error());
  const std::lock_guard lock(mutex_);
  names_.insert(names_.begin(), names.begin(), names.end());
  has_names_.store(true, std::memory_order_seq_cst);
  return false;
}

bool UsageWriter::write_batch() {
  if (!write_names()) return false;
  const std::uint64_t first = durable_.load(std::memory_order_relaxed);
  const std::uint64_t count =
      std::min<std::uint64_t>(pushed_.load(std::memory_order_acquire) - first, kUsageBatchMax);
  if (count > 0) {
    batch_.clear();
    for (std::uint64_t i = 0; i < count; ++i) batch_.push_back(ring_[(first + i) % ring_.size()]);
    if (const Result<void> added = book_.add_new(batch_, unix_now_s()); !added) {
      note_failure(added.error());
      return false;
    }
    durable_.store(first + count, std::memory_order_release);
  }
  if (is_failing_.exchange(false) && options_.recovered) options_.recovered();
  if (count > 0 && options_.written) options_.written();
  return true;
}

void UsageWriter::run() {
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      wake_at_.store(durable_.load(std::memory_order_relaxed) + 1, std::memory_order_seq_cst);
      wake_.wait(lock, [&] { return is_stopping_ || has_work(); });
      wake_at_.store(kAwake, std::memory_order_seq_cst);
    }
    bool is_stopping = gather();
    bool is_written = true;
    // What came while it wrote is gathered again, unless that is enough already.
    do {
      is_written = write_batch();
    } while (is_written && num_waiting() >= ready_);
    if (!is_written && !is_stopping) is_stopping = pause(kUsageRetryTime);
    if (!is_stopping) continue;
    // What came since; a disk that fails now leaves it to the journal.
    while (has_work() && write_batch()) continue;
    return;
  }
}

}  // namespace sluice::gw
