// The store thread of AdminService: jobs one after the other. Included by its parts only.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "gateway/admin/admin_service.h"

namespace sluice::gw {

// One job at a time is under way; further ones are few (kAdminCallsWaitingMax bounds the callers).
struct AdminService::Thread {
  Thread() : thread([this] { run(); }) {}
  ~Thread() {
    {
      const std::lock_guard lock(mutex);
      is_stopping = true;
    }
    has_work.notify_one();
    thread.join();
  }
  void submit(std::function<void()> job) {
    {
      const std::lock_guard lock(mutex);
      jobs.push_back(std::move(job));
    }
    has_work.notify_one();
  }
  std::size_t num_waiting() {
    const std::lock_guard lock(mutex);
    return jobs.size();
  }
  void run() {
    std::unique_lock lock(mutex);
    for (;;) {
      has_work.wait(lock, [this] { return is_stopping || !jobs.empty(); });
      if (is_stopping) return;
      const std::function<void()> job = std::move(jobs.front());
      jobs.pop_front();
      lock.unlock();
      job();
      lock.lock();
    }
  }

  std::mutex mutex;  // guards all below but the thread
  std::condition_variable has_work;
  std::deque<std::function<void()>> jobs;
  bool is_stopping = false;
  std::thread thread;  // last: it uses the others
};

}  // namespace sluice::gw
