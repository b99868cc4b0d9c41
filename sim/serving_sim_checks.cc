// ServingSim: what must hold after every event, and what must be true in the end.
#include <algorithm>

#include "sim/fake_model.h"
#include "sim/serving_sim.h"

namespace sluice::sim {

void ServingSim::violate(const std::string& what) {
  if (report_.violation.empty()) report_.violation = what;
}

// Complete before the first token, whatever happened to the workers meanwhile.
void ServingSim::check_scores(const Client& client) {
  const std::span<const TokenId> prompt(client.spec.prompt);
  const std::span<const float> scores = core_->prompt_result(client.handle, 0).logprobs;
  const bool is_wanted = client.spec.prompt_scores == gw::PromptScores::wanted;
  if (scores.size() != (is_wanted ? prompt.size() - 1 : 0)) {
    violate("another number of prompt log-probabilities than asked for");
    return;
  }
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (scores[i] != logprob_of_last(prompt.first(i + 2))) {
      violate("log-probabilities of a prompt differ from the undisturbed ones");
    }
  }
}

void ServingSim::check() {
  core_->check_invariants();
  for (const Worker& worker : workers_) {
    if (worker.scheduler && !worker.is_computing) worker.scheduler->check_invariants();
  }
  std::uint64_t billed = billed_;
  for (const auto& [slot, accepted] : journal_) billed += accepted;
  std::uint64_t taken = 0;
  std::vector<std::uint64_t> last_minute(limits_.accounts.size(), 0);
  std::vector<std::uint32_t> running(limits_.accounts.size(), 0);
  for (const Client& client : clients_) {
    std::uint64_t tokens = 0;
    for (const auto& choice : client.taken) tokens += choice.size();
    taken += tokens;
    if (!client.handle) continue;
    for (std::optional<AccountId> up = client.spec.account; up;
         up = limits_.accounts[up->value].parent) {
      if (client.admitted > now_ - std::chrono::seconds(60) && tokens > 0) {
        last_minute[up->value] += client.spec.prompt.size() + tokens;
      }
      running[up->value] += core_->is_live(client.handle) ? 1 : 0;
    }
  }
  if (billed != taken) violate("the journal differs from what clients took");
  for (std::size_t i = 0; i < limits_.accounts.size(); ++i) {
    const gw::AccountSpec& account = limits_.accounts[i];
    const auto most = [&](gw::LimitKind kind) { return account.limits[kind].value_or(~0ull); };
    // An extension is charged to its own second, not to that of the admission.
    if (account.mode == gw::ReservationMode::exact &&
        last_minute[i] > most(gw::LimitKind::tokens_per_minute)) {
      violate("a token limit was overshot");
    }
    if (running[i] > most(gw::LimitKind::concurrent_requests)) {
      violate("a concurrency limit was overshot");
    }
  }
  check_ledger();
}

void ServingSim::check_ledger() {
  const gw::Ledger& ledger = core_->ledger();
  for (std::size_t k = 0; k < gw::kCounterKinds; ++k) {
    const auto kind = static_cast<gw::LimitKind>(k);
    for (std::uint32_t i = 0; i < limits_.accounts.size(); ++i) {
      const std::uint64_t limit = limits_.accounts[i].limits[kind].value_or(gw::kNoLimit);
      if (ledger.used(AccountId{i}, kind, now_) > limit) {
        violate("spent and reserved pass a limit: " + std::string(gw::limit_kind_name(kind)));
      }
    }
    if (ledger.used(AccountId{4}, kind, now_) > ledger.used(AccountId{1}, kind, now_)) {
      violate("a key counts more than its tenant");
    }
  }
}

void ServingSim::check_end() {
  if (core_->num_live_requests() > 0) violate("a request never ended");
  if (!journal_.empty()) violate("a journal slot leaked");
  if (core_->ledger().num_open() > 0) violate("a reservation leaked");
  for (std::uint32_t i = 0; i < limits_.accounts.size(); ++i) {
    if (core_->ledger().used(AccountId{i}, gw::LimitKind::concurrent_kv_tokens, now_) > 0) {
      violate("an account holds KV tokens without a request");
    }
  }
  if (core_->counters(0).pending > 0) violate("tokens are pending without a client");
  if (core_->poison(0).num_suspects() > 0) violate("a suspect was never judged");
  for (std::uint32_t id = 0; id < workers_.size(); ++id) {
    if (core_->num_held(WorkerId{id}) > 0) violate("a worker holds a sequence that nobody wants");
  }
  for (const Client& client : clients_) {
    if (!client.is_over()) violate("a client waits for ever");
    const bool is_poisoned = !client.spec.prompt.empty() && client.spec.prompt[0] == kPoisonId;
    if (params_.has_poison && client.failure && client.failure->code == Errc::poisoned_request &&
        !is_poisoned) {
      violate("an innocent request was condemned");
    }
    const bool is_cut = client.is_refused || client.is_gone || client.failure;
    if (!is_cut) ++report_.finished;
    for (std::uint32_t choice = 0; choice < client.taken.size(); ++choice) {
      std::vector<TokenId> ids = client.spec.prompt;
      for (const TokenId token : client.taken[choice]) {
        if (token != next_token(ids, client.spec.sampling.seed, choice)) {
          violate("a stream differs from the undisturbed one");
        }
        ids.push_back(token);
      }
      if (is_poisoned && !client.taken[choice].empty()) violate("a poisoned request got tokens");
    }
  }
}

}  // namespace sluice::sim
