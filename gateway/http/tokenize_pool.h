// TokenizePool: long bodies are parsed and long texts tokenized here, never on the event loop. Jobs
// wait in one queue per tenant and are taken round robin over tenants, so that one tenant's
// megabytes delay only its own. The threads run at a lower priority than the event loop.
//
// submit() and the delivery happen on the loop's thread, run() on a pool thread. A job is shared by
// both until it was delivered, hence the shared_ptr.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "gateway/api/openai_types.h"
#include "gateway/http/prompt_encoding.h"
#include "shared/ids.h"

namespace sluice::gw {

inline constexpr std::size_t kTokenizeJobsMax = 1024;
inline constexpr std::size_t kTokenizeBytesMax = 128u << 20;

// A longer body is parsed on the pool: about 50 us of the event loop.
inline constexpr std::size_t kInlineParseBytesMax = 64u << 10;

struct EncodeJob {
  enum class Work : std::uint8_t { parse, encode };

  Work work = Work::encode;
  std::string body;                    // parse: moved in, gone afterwards
  ApiKind kind{};                      // parse
  std::uint64_t hash_seed = 0;         // parse: of the parser
  const ServedModel* model = nullptr;  // encode
  TenantId tenant;
  GenerationRequest request;                // moved in, taken back by the owner; parse: out
  std::vector<std::vector<TokenId>> ids;    // out
  Result<void> result;                      // out
  std::atomic<bool> is_cancelled{false};    // set by the loop, read before the work starts
  std::function<void(EncodeJob&)> on_done;  // loop's thread; emptied by an owner that went away
};

class TokenizePool {
 public:
  // `deliver` is called on a pool thread and must hand the job to the loop's thread.
  TokenizePool(std::uint32_t num_threads, std::function<void(std::shared_ptr<EncodeJob>)> deliver);
  ~TokenizePool();  // waits for the running jobs; waiting ones are dropped

  // Errors: overloaded, with a retry hint.
  Result<void> submit(std::shared_ptr<EncodeJob> job);
  std::size_t num_waiting() const;

 private:
  void run();

  const std::function<void(std::shared_ptr<EncodeJob>)> deliver_;
  mutable std::mutex mutex_;  // guards all below but the threads
  std::condition_variable has_work_;
  std::map<TenantId, std::deque<std::shared_ptr<EncodeJob>>> waiting_;  // no empty queues
  TenantId last_served_;
  std::size_t num_waiting_ = 0;
  std::size_t bytes_waiting_ = 0;
  bool is_stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace sluice::gw
