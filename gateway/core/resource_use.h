// What a sequence holds and works while a worker has it: KV tokens times seconds, and its share of
// the worker's step time. For usage reports; nothing is limited or priced by it.
//
// A token that a step computes costs that step's duration divided by its tokens. A prompt is
// computed over several steps that name no sequence: its tokens cost the mean over the steps from
// the dispatch to the first entry, and a prompt that never got so far costs nothing. So the sum
// over sequences is near the workers' step time, not equal to it. Work that is done again (a dead
// worker) counts again. Pure values; times are the caller's.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "shared/clock.h"
#include "shared/limits.h"
#include "shared/messages.h"

namespace sluice::gw {

struct ResourceUse {
  std::uint64_t kv_token_us = 0;  // KV tokens x microseconds
  std::uint64_t device_ns = 0;
};

// The step time of a worker, over its epochs.
class WorkerTime {
 public:
  void take(const StepRecord& head) {
    const std::uint64_t ns = std::min(head.duration_ns, kStepNsMax);
    const auto tokens = std::uint64_t{head.num_prefill_tokens} + head.num_decode_tokens;
    last_token_ns_ = tokens == 0 ? 0 : ns / tokens;
    ns_ += ns;
    tokens_ += tokens;
  }
  std::uint64_t ns() const { return ns_; }
  std::uint64_t tokens() const { return tokens_; }
  std::uint64_t last_token_ns() const { return last_token_ns_; }  // of one token of the last step

 private:
  std::uint64_t ns_ = 0, tokens_ = 0, last_token_ns_ = 0;
};

class ResourceMeter {
 public:
  // A worker has the sequence, with so many tokens to hold.
  void begin(std::uint32_t tokens, const WorkerTime& worker, Tick now) {
    tokens_ = tokens;
    since_ = now;
    begin_ns_ = worker.ns();
    begin_tokens_ = worker.tokens();
    has_entry_ = false;
  }
  // Its next token, or the end of its prompt; `cached`: tokens that the prefix cache had, of the
  // first one after begin().
  void entry(std::uint32_t cached, const WorkerTime& worker, Tick now) {
    hold(now);
    if (has_entry_) {
      use_.device_ns += worker.last_token_ns();
    } else if (const std::uint64_t tokens = worker.tokens() - begin_tokens_; tokens > 0) {
      const std::uint64_t ns = std::min((worker.ns() - begin_ns_) / tokens, kStepNsMax);
      use_.device_ns += (tokens_ - std::min(cached, tokens_)) * ns;
    }
    has_entry_ = true;
  }
  void grow() { ++tokens_; }
  void hold(Tick now) {
    const auto time = std::chrono::duration_cast<std::chrono::microseconds>(now - since_);
    if (time.count() <= 0) return;
    since_ += time;  // what is less than a microsecond counts the next time
    use_.kv_token_us += tokens_ * static_cast<std::uint64_t>(time.count());
  }
  void end(Tick now) {
    hold(now);
    tokens_ = 0;
  }
  std::uint32_t tokens() const { return tokens_; }
  const ResourceUse& use() const { return use_; }

 private:
  ResourceUse use_;
  std::uint32_t tokens_ = 0;  // held now
  Tick since_{};
  std::uint64_t begin_ns_ = 0, begin_tokens_ = 0;
  bool has_entry_ = false;
};

}  // namespace sluice::gw
