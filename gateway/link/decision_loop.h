// DecisionLoop: the one thread that owns ledger, queues, router and all rings. It is the shell
// around the pure ServingCore (gateway/core/serving_core.h): it drains step rings, feeds events to
// the core and carries out its actions (ring writes, journal stores, notifications).
//
// Handlers talk to it by plain calls: with the default single thread they run on this thread.
// A GenerationSink is notified after a batch of records was drained, never from inside submit(),
// and then takes its tokens in two moves: peek at what is pending, accept what it is about to
// write. accept() stores the journal before the caller writes to the socket (P5).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <boost/asio/io_context.hpp>

#include "config/config.h"
#include "gateway/core/generation.h"
#include "gateway/core/lease_book.h"
#include "gateway/core/quota_view.h"
#include "shared/control.h"
#include "shared/journal.h"
#include "shared/result.h"

namespace sluice::gw {

class GenerationSink {
 public:
  virtual ~GenerationSink() = default;
  // `choice` has tokens to take. Several tokens, one call.
  virtual void on_tokens(std::uint32_t choice) = 0;
  // The request ended without being finished: no further calls. Tokens not accepted are discarded.
  virtual void on_failed(const Error& error) = 0;
};

struct ModelFacts {  // from worker hellos; stable while at least one worker is up
  std::uint32_t vocab_size = 0;
  std::uint32_t context_tokens = 0;
  std::uint64_t weights_digest = 0;
  std::uint64_t kernel_path = 0;
  std::uint32_t workers_ready = 0;
  std::uint32_t embedding_size = 0;  // 0: serves no embeddings
};

// Whether what was used reaches the disk. failing: accounts with a limit are refused with
// quota_store_unavailable; full: everyone, for as much waits as may.
enum class UsageStoreState : std::uint8_t { storing, failing, full };

// Where limits are counted: by this gateway alone, or in a store that several gateways share.
// settling: it lost its data or is new, and grants nothing until all have reported. unavailable:
// accounts with a limit are refused once nothing is leased any longer.
enum class QuotaStoreState : std::uint8_t { local, connected, settling, unavailable };

// A request that waits for shared limits.
class QuotaWaiter {
 public:
  virtual ~QuotaWaiter() = default;
  // Ask again: lease() now says ready, or an error, or pending once more. Never from inside
  // lease().
  virtual void on_quota() = 0;
};

class DecisionLoop {
 public:
  virtual ~DecisionLoop() = default;

  // Before submit() and count_request(): whether what they need is leased here. pending: the store
  // is asked for it; on_quota() follows within the time that requests may wait, unless forget() is
  // called first. Errors: as of submit(), and quota_store_unavailable. Where limits are not shared:
  // ready. What is ready holds until control returns to the loop.
  virtual Result<LeaseState> lease(const GenerationSpec& spec, QuotaWaiter& waiter) = 0;
  virtual Result<LeaseState> lease_count(Caller caller, QuotaWaiter& waiter) = 0;
  virtual void forget(QuotaWaiter& waiter) = 0;

  // Counts a request that will not generate (/tokenize, count routes) against the request limits.
  virtual Result<void> count_request(Caller caller) = 0;
  // Cheap checks before tokenizing: request rate, concurrency, queue, a ready worker (P6).
  virtual Result<void> precheck(Caller caller, std::uint32_t model) = 0;
  // Reserves prompt + choices * output_tokens_max and queues. The sink must outlive the handle:
  // until all choices finished or failed, or cancel() returned.
  virtual Result<GenerationHandle> submit(GenerationSpec spec, GenerationSink& sink) = 0;

  virtual std::span<const OutputToken> pending(GenerationHandle handle, std::uint32_t choice) = 0;
  // Of the pending tokens: as many for each as were asked for, the likeliest first.
  virtual std::span<const TopLogprob> pending_top(GenerationHandle handle,
                                                  std::uint32_t choice) = 0;
  virtual PromptResult prompt_result(GenerationHandle handle, std::uint32_t choice) = 0;
  // The first `count` pending tokens are being written: journal, ledger, counters. Invalidates the
  // span. When the last accepted token has a finish reason the choice is over. `count` 0 ends a
  // choice whose prompt_result() has one.
  virtual void accept(GenerationHandle handle, std::uint32_t choice, std::uint32_t count) = 0;
  // A stop string matched in the last accepted token: the choice is over, the rest is discarded.
  virtual void stop(GenerationHandle handle, std::uint32_t choice) = 0;
  // The sequences are freed within one step. The sink hears nothing more.
  virtual void cancel(GenerationHandle handle, CancelCause cause) = 0;

  virtual GenerationStats stats(
      GenerationHandle handle) const = 0;  // also right after the last accept
  virtual LimitsView limits(Caller caller) const = 0;
  // By kind of limit, of the level (key, tenant, its parents) that has the least left.
  virtual QuotaView quota(Caller caller) const = 0;
  virtual ModelFacts model_facts(std::uint32_t model) const = 0;
  virtual UsageStoreState usage_store_state() const = 0;
  virtual QuotaStoreState quota_store_state() const = 0;
};

}  // namespace sluice::gw
