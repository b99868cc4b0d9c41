// The pool's queue and threads.
#include "gateway/http/tokenize_pool.h"

#include <sys/resource.h>
#include <unistd.h>

#include "gateway/api/parse_request.h"

namespace sluice::gw {
namespace {

constexpr int kNice = 10;  // behind the event loop and the workers

std::size_t bytes_of(const EncodeJob& job) {
  return job.work == EncodeJob::Work::parse ? job.body.size() : encoding_cost(job.request);
}

void perform(EncodeJob& job) {
  if (job.work == EncodeJob::Work::encode) {
    job.result = encode_prompts(*job.model, job.request, job.ids);
    return;
  }
  // A parser per job: what a huge body took is given back with it.
  RequestParser parser(job.hash_seed);
  job.result = parser.parse_generation(job.body, job.kind, job.request);
  std::string().swap(job.body);
}

}  // namespace

TokenizePool::TokenizePool(std::uint32_t num_threads,
                           std::function<void(std::shared_ptr<EncodeJob>)> deliver)
    : deliver_(std::move(deliver)) {
  for (std::uint32_t i = 0; i < num_threads; ++i) threads_.emplace_back([this] { run(); });
}

TokenizePool::~TokenizePool() {
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  has_work_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

Result<void> TokenizePool::submit(std::shared_ptr<EncodeJob> job) {
  const std::size_t bytes = bytes_of(*job);
  {
    const std::lock_guard lock(mutex_);
    if (num_waiting_ >= kTokenizeJobsMax || bytes_waiting_ + bytes > kTokenizeBytesMax) {
      Error error = make_error(Errc::overloaded, "too much text waits for tokenizing");
      // About one megabyte a second and thread is tokenized at the very least.
      error.retry_after = std::chrono::milliseconds(
          1000 + (bytes_waiting_ >> 10) / std::max<std::size_t>(1, threads_.size()));
      return error;
    }
    ++num_waiting_;
    bytes_waiting_ += bytes;
    waiting_[job->tenant].push_back(std::move(job));
  }
  has_work_.notify_one();
  return {};
}

std::size_t TokenizePool::num_waiting() const {
  const std::lock_guard lock(mutex_);
  return num_waiting_;
}

void TokenizePool::run() {
  // Linux keeps a nice value per thread; failing to change it is no fault.
  (void)setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), kNice);
  std::unique_lock lock(mutex_);
  while (true) {
    has_work_.wait(lock, [this] { return is_stopping_ || num_waiting_ > 0; });
    if (is_stopping_) return;
    auto next = waiting_.upper_bound(last_served_);
    if (next == waiting_.end()) next = waiting_.begin();
    last_served_ = next->first;
    std::shared_ptr<EncodeJob> job = std::move(next->second.front());
    next->second.pop_front();
    if (next->second.empty()) waiting_.erase(next);
    --num_waiting_;
    bytes_waiting_ -= bytes_of(*job);
    lock.unlock();
    if (!job->is_cancelled.load(std::memory_order_relaxed)) perform(*job);
    deliver_(std::move(job));
    lock.lock();
  }
}

}  // namespace sluice::gw
