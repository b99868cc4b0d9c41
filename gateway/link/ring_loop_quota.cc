// RingDecisionLoop: limits that are shared with other gateways - who waits for their store, and the
// exchanges with it.
#include <array>
#include <cstdio>
#include <utility>
#include <vector>

#include "gateway/link/ring_decision_loop.h"
#include "shared/check.h"

namespace sluice::gw {

namespace {

std::string hex(std::span<const std::uint8_t> bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (const std::uint8_t byte : bytes) {
    out += kDigits[byte >> 4];
    out += kDigits[byte & 15];
  }
  return out;
}

}  // namespace

void RingDecisionLoop::set_quota_store(std::unique_ptr<RedisQuotaStore> store) {
  CHECK(core_->leases() != nullptr && !quota_store_);
  quota_store_ = std::move(store);
}

QuotaStoreState RingDecisionLoop::quota_store_state() const {
  const LeaseBook* const leases = core_->leases();
  if (leases == nullptr) return QuotaStoreState::local;
  if (!leases->is_connected()) return QuotaStoreState::unavailable;
  return leases->settles_at(clock_.now()) ? QuotaStoreState::settling : QuotaStoreState::connected;
}

template <class Ask>
Result<LeaseState> RingDecisionLoop::lease(QuotaWaiter& waiter, Ask ask) {
  const LeaseBook* const leases = core_->leases();
  if (leases == nullptr) return LeaseState::ready;
  const Tick now = clock_.now();
  const auto known = waiter_order_.find(&waiter);
  const bool has_waited = known != waiter_order_.end();
  const Waiting waiting = has_waited
                              ? waiters_.at(known->second)
                              : Waiting{&waiter, leases->next_exchange(), now + quota_wait_max_};
  const Result<LeaseState> state = ask(waiting.since, now);
  const bool is_pending = state && *state == LeaseState::pending;
  if (is_pending && now < waiting.until) {
    if (has_waited) return state;
    ++counters_.quota_waits;
    waiter_order_.emplace(&waiter, next_waiter_);
    waiters_.emplace(next_waiter_++, waiting);
    return state;
  }
  forget(waiter);
  if (!is_pending) return state;
  ++counters_.quota_timeouts;
  Error error = make_error(Errc::quota_store_unavailable,
                           "the store of shared limits does not answer in time");
  error.retry_after = std::chrono::seconds(1);
  return error;
}

Result<LeaseState> RingDecisionLoop::lease(const GenerationSpec& spec, QuotaWaiter& waiter) {
  return lease(waiter, [&](std::uint64_t since, Tick now) {
    return core_->lease(spec, inner(spec.tenant), account({spec.tenant, spec.key}), since, now);
  });
}

Result<LeaseState> RingDecisionLoop::lease_count(Caller caller, QuotaWaiter& waiter) {
  return lease(waiter, [&](std::uint64_t since, Tick now) {
    return core_->lease_request(account(caller), since, now);
  });
}

void RingDecisionLoop::forget(QuotaWaiter& waiter) {
  const auto known = waiter_order_.find(&waiter);
  if (known == waiter_order_.end()) return;
  waiters_.erase(known->second);
  waiter_order_.erase(known);
}

// In the order in which they came; each may wait again, and others may be forgotten meanwhile.
void RingDecisionLoop::call_waiters() {
  std::vector<std::uint64_t> orders;
  for (const auto& [order, waiting] : waiters_) orders.push_back(order);
  for (const std::uint64_t order : orders) {
    const auto at = waiters_.find(order);
    if (at != waiters_.end()) at->second.waiter->on_quota();
  }
}

void RingDecisionLoop::take_quota_news() {
  if (!quota_store_) return;
  bool is_news = false;
  if (quota_store_->has_news()) {
    RedisQuotaStore::News news = quota_store_->take_news();
    is_news = true;
    const bool has_moved = news.connection != quota_connection_ || news.reason != quota_reason_;
    if (news.connection != quota_connection_) {
      if (is_quota_connected_) core_->store_lost();
      if (news.is_connected) core_->store_connected(news.settling, now_);
    }
    quota_connection_ = news.connection;
    is_quota_connected_ = news.is_connected;
    quota_reason_ = news.reason;
    if (news.answers) core_->end_exchange(*news.answers, now_);
    carry_out();
    if (has_moved && hooks.quota_store_moved)
      hooks.quota_store_moved(is_quota_connected_, quota_reason_);
  }
  const bool is_someone_due = !waiters_.empty() && waiters_.begin()->second.until <= now_;
  if (is_news || is_someone_due) call_waiters();
}

std::optional<Tick> RingDecisionLoop::next_quota_due() const {
  if (!quota_store_) return std::nullopt;
  std::optional<Tick> due = core_->leases()->next_due();
  if (waiters_.empty()) return due;
  const Tick until = waiters_.begin()->second.until;
  return due ? std::min(*due, until) : until;
}

std::string RingDecisionLoop::counter_key(const LeasePlace& place) const {
  constexpr std::size_t kDigestBytes = 16;
  const AccountDigest& account = account_names_[place.account.value].account;
  std::string key = hex(std::span(account).first(kDigestBytes));
  if (place.model) {
    std::array<char, 20> digits{};
    std::snprintf(digits.data(), digits.size(), ":%016llx",
                  static_cast<unsigned long long>(model_digests_[*place.model]));
    key += digits.data();
  } else {
    key += ":all";
  }
  return key.append(":").append(limit_kind_name(place.kind));
}

void RingDecisionLoop::send_asks() {
  if (!quota_store_) return;
  const std::optional<Tick> due = core_->leases()->next_due();
  if (!due || *due > now_) return;
  std::vector<LeaseAsk> asks = core_->begin_exchange(RedisQuotaStore::kAsksMax, now_);
  if (asks.empty()) return;
  std::vector<KeyedAsk> keyed;
  for (LeaseAsk& ask : asks) {
    std::string key = counter_key(ask.place);
    keyed.push_back({std::move(key), std::move(ask)});
  }
  quota_store_->send(std::move(keyed), quota_connection_);
}

}  // namespace sluice::gw
