// FakeDecisionLoop: a decision loop without workers. Each submitted request gets scripted tokens,
// which the test hands out step by step; what handlers accept, stop and cancel is recorded.
// The rules of the real one are checked: spans die with accept(), over choices stay over.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "gateway/link/decision_loop.h"

namespace sluice::test {

class FakeDecisionLoop final : public gw::DecisionLoop {
 public:
  struct Choice {
    std::vector<gw::OutputToken> script;  // all tokens of this choice
    std::size_t drained = 0;              // handed out by step()
    std::uint32_t accepted = 0;
    bool is_over = false;
    std::vector<gw::OutputToken> span;  // what pending() returned last
    std::vector<TopLogprob> top;        // what pending_top() returned last
    bool has_ended_prompt = false;      // nothing follows it, and step() said so
  };
  struct Request {
    gw::GenerationSpec spec;
    gw::GenerationSink* sink = nullptr;
    std::vector<Choice> choices;
    bool is_live = true;
    std::optional<gw::CancelCause> cancelled;
    bool is_stopped = false;
  };

  // Makes the tokens of one choice; the last one must carry a finish reason. Default: `reply`, cut
  // by the output bound (length), else followed by a stop id (stop).
  std::function<std::vector<gw::OutputToken>(const gw::GenerationSpec&, std::uint32_t choice)>
      script;
  std::vector<TokenId> reply{10, 11, 12};
  // Alternative `rank` of a token, and of a prompt's token: made of id and rank.
  static TopLogprob alternative(TokenId id, std::uint32_t rank) {
    return {(id + rank) % 1024, -0.5f * static_cast<float>(rank + 1)};
  }
  std::vector<float> embedding{0.6f, -0.8f};  // of every input

  std::size_t live_max = 1u << 20;  // more are refused with concurrency_limit
  std::size_t most_live = 0;
  std::optional<Error> refuse_precheck, refuse_submit, refuse_count;
  gw::LimitsView limits_view;
  gw::UsageStoreState store = gw::UsageStoreState::storing;
  gw::QuotaStoreState quota_store = gw::QuotaStoreState::local;
  // So many calls of lease() and lease_count() wait; grant() lets them go on.
  int leases_pending = 0;
  std::optional<Error> refuse_lease;
  std::vector<gw::QuotaWaiter*> waiters;
  void grant() {
    for (gw::QuotaWaiter* waiter : std::exchange(waiters, {})) waiter->on_quota();
  }
  gw::QuotaView quota_view;
  gw::ModelFacts facts{.vocab_size = 1024,
                       .context_tokens = 4096,
                       .weights_digest = 0x1234567890abcdef,
                       .kernel_path = 0x42,
                       .workers_ready = 1};
  std::map<std::uint64_t, Request> requests;  // by handle, ended ones included
  int num_counted = 0;

  Request& last() { return requests.rbegin()->second; }
  std::size_t num_live() const {
    std::size_t live = 0;
    for (const auto& [handle, request] : requests) live += request.is_live ? 1 : 0;
    return live;
  }

  // Drains `count` more tokens of every live choice, then notifies. False: nothing was left to
  // drain.
  bool step(std::size_t count = 1) {
    std::vector<std::pair<std::uint64_t, std::uint32_t>> notices;
    for (auto& [handle, request] : requests) {
      for (std::uint32_t i = 0; request.is_live && i < request.choices.size(); ++i) {
        Choice& choice = request.choices[i];
        if (choice.is_over) continue;
        if (request.spec.output_tokens_max == 0 && !choice.has_ended_prompt) {
          choice.has_ended_prompt = true;
          notices.emplace_back(handle, i);
          continue;
        }
        if (choice.drained == choice.script.size()) continue;
        choice.drained = std::min(choice.script.size(), choice.drained + count);
        notices.emplace_back(handle, i);
      }
    }
    for (const auto& [handle, choice] : notices) {
      Request& request = requests[handle];
      if (request.is_live && !request.choices[choice].is_over) request.sink->on_tokens(choice);
    }
    return !notices.empty();
  }

  void fail_last(const Error& error) {
    Request& request = last();
    request.is_live = false;
    request.sink->on_failed(error);
  }

  Result<void> count_request(gw::Caller) override {
    if (refuse_count) return *refuse_count;
    ++num_counted;
    return {};
  }
  Result<void> precheck(gw::Caller, std::uint32_t) override {
    if (refuse_precheck) return *refuse_precheck;
    return {};
  }
  Result<gw::GenerationHandle> submit(gw::GenerationSpec spec, gw::GenerationSink& sink) override {
    if (refuse_submit) return *refuse_submit;
    if (num_live() >= live_max) return make_error(Errc::concurrency_limit, "no more at once");
    Request request;
    for (std::uint32_t i = 0; i < spec.choices; ++i)
      request.choices.emplace_back().script = script ? script(spec, i) : default_script(spec);
    request.spec = std::move(spec);
    request.sink = &sink;
    requests.emplace(++last_handle_, std::move(request));
    most_live = std::max(most_live, num_live());
    return gw::GenerationHandle{last_handle_};
  }
  std::span<const gw::OutputToken> pending(gw::GenerationHandle handle,
                                           std::uint32_t choice) override {
    Choice* found = find(handle, choice);
    if (found == nullptr || found->is_over) return {};
    found->span.assign(found->script.begin() + found->accepted,
                       found->script.begin() + static_cast<std::ptrdiff_t>(found->drained));
    return found->span;
  }
  std::span<const TopLogprob> pending_top(gw::GenerationHandle handle,
                                          std::uint32_t choice) override {
    Choice* found = find(handle, choice);
    if (found == nullptr || found->is_over) return {};
    const std::uint32_t num_top = requests[handle.value].spec.sampling.num_top_logprobs;
    found->top.clear();
    for (std::size_t i = found->accepted; i < found->drained; ++i)
      for (std::uint32_t rank = 0; rank < num_top; ++rank)
        found->top.push_back(alternative(found->script[i].id, rank));
    return found->top;
  }
  gw::PromptResult prompt_result(gw::GenerationHandle handle, std::uint32_t choice) override {
    const Choice* found = find(handle, choice);
    if (found == nullptr || found->is_over) return {};
    const gw::GenerationSpec& spec = requests[handle.value].spec;
    gw::PromptResult result;
    prompt_logprobs_.clear();
    prompt_top_.clear();
    if (spec.prompt_scores == gw::PromptScores::wanted && choice == 0) {
      for (std::size_t i = 1; i < spec.prompt.size(); ++i) {
        prompt_logprobs_.push_back(-static_cast<float>(i));
        for (std::uint32_t rank = 0; rank < spec.sampling.num_top_logprobs; ++rank)
          prompt_top_.push_back(alternative(spec.prompt[i], rank));
      }
    }
    result.logprobs = prompt_logprobs_;
    result.top = prompt_top_;
    if (!found->has_ended_prompt) return result;
    result.finish = FinishReason::length;
    if (spec.task == SequenceTask::embed) result.embedding = embedding;
    return result;
  }
  void accept(gw::GenerationHandle handle, std::uint32_t choice, std::uint32_t count) override {
    Choice* found = find(handle, choice);
    ASSERT_NE(found, nullptr);
    ASSERT_FALSE(found->is_over);
    if (count == 0) {
      ASSERT_TRUE(found->has_ended_prompt);
      return end(handle, *found);
    }
    ASSERT_LE(found->accepted + count, found->drained);
    ASSERT_GT(count, 0u);
    found->accepted += count;
    std::fill(found->span.begin(), found->span.end(), gw::OutputToken{});  // it is void now
    if (found->script[found->accepted - 1].finish != FinishReason::none) end(handle, *found);
  }
  void stop(gw::GenerationHandle handle, std::uint32_t choice) override {
    Choice* found = find(handle, choice);
    ASSERT_NE(found, nullptr);
    ASSERT_FALSE(found->is_over);
    requests[handle.value].is_stopped = true;
    end(handle, *found);
  }
  void cancel(gw::GenerationHandle handle, gw::CancelCause cause) override {
    const auto at = requests.find(handle.value);
    if (at == requests.end() || !at->second.is_live) return;
    at->second.is_live = false;
    at->second.cancelled = cause;
  }
  gw::GenerationStats stats(gw::GenerationHandle handle) const override {
    gw::GenerationStats stats;
    const Request& request = requests.at(handle.value);
    stats.prompt_tokens = static_cast<std::uint32_t>(request.spec.prompt.size());
    stats.cached_tokens = 1;
    for (const Choice& choice : request.choices) stats.completion_tokens += choice.accepted;
    return stats;
  }
  gw::LimitsView limits(gw::Caller) const override { return limits_view; }
  gw::QuotaView quota(gw::Caller) const override { return quota_view; }
  gw::ModelFacts model_facts(std::uint32_t) const override { return facts; }
  gw::UsageStoreState usage_store_state() const override { return store; }
  gw::QuotaStoreState quota_store_state() const override { return quota_store; }
  Result<gw::LeaseState> lease(const gw::GenerationSpec&, gw::QuotaWaiter& waiter) override {
    return lease_one(waiter);
  }
  Result<gw::LeaseState> lease_count(gw::Caller, gw::QuotaWaiter& waiter) override {
    return lease_one(waiter);
  }
  void forget(gw::QuotaWaiter& waiter) override { std::erase(waiters, &waiter); }

 private:
  std::vector<gw::OutputToken> default_script(const gw::GenerationSpec& spec) const {
    std::vector<gw::OutputToken> tokens;
    if (spec.output_tokens_max == 0) return tokens;
    for (const TokenId id : reply) {
      tokens.push_back({id, -1.0f, FinishReason::none});
      if (tokens.size() == spec.output_tokens_max) break;
    }
    if (tokens.size() == spec.output_tokens_max)
      tokens.back().finish = FinishReason::length;
    else
      tokens.push_back(
          {spec.stop_ids.empty() ? TokenId{2} : spec.stop_ids[0], -1.0f, FinishReason::stop});
    return tokens;
  }
  Result<gw::LeaseState> lease_one(gw::QuotaWaiter& waiter) {
    if (refuse_lease) return *refuse_lease;
    if (leases_pending == 0) return gw::LeaseState::ready;
    --leases_pending;
    waiters.push_back(&waiter);
    return gw::LeaseState::pending;
  }
  Choice* find(gw::GenerationHandle handle, std::uint32_t choice) {
    const auto at = requests.find(handle.value);
    if (at == requests.end() || !at->second.is_live || choice >= at->second.choices.size())
      return nullptr;
    return &at->second.choices[choice];
  }
  void end(gw::GenerationHandle handle, Choice& choice) {
    choice.is_over = true;
    Request& request = requests[handle.value];
    for (const Choice& other : request.choices)
      if (!other.is_over) return;
    request.is_live = false;
  }

  std::uint64_t last_handle_ = 0;
  std::vector<float> prompt_logprobs_;
  std::vector<TopLogprob> prompt_top_;
};

}  // namespace sluice::test
