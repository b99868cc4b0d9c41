// LeaseBook: rooms, and the exchanges that fill them.
#include "gateway/core/lease_book.h"

#include <algorithm>

#include "shared/check.h"

namespace sluice::gw {

namespace {

constexpr int kReportsPerLease = 10;
constexpr int kRenewalsPerLease = 3;
constexpr Duration kOthersAgeMax = std::chrono::seconds(60);

bool has_period(LimitKind kind) {
  return kind == LimitKind::tokens_per_day || kind == LimitKind::monthly_budget;
}

std::uint64_t without(std::uint64_t amount, std::uint64_t less) {
  return amount > less ? amount - less : 0;
}

}  // namespace

LeaseBook::LeaseBook(const LeaseParams& params)
    : params_(params),
      report_time_(params.lease_time / kReportsPerLease),
      renew_time_(params.lease_time / kRenewalsPerLease) {
  CHECK(params.lease_time > Duration{0} && params.block_permille <= 1000);
}

std::uint32_t LeaseBook::add(AccountId account, std::optional<std::uint32_t> model) {
  const auto first = static_cast<std::uint32_t>(rooms_.size());
  for (std::size_t i = 0; i < kCounterKinds; ++i) {
    rooms_.emplace_back();
    rooms_.back().place = {account, model, static_cast<LimitKind>(i)};
  }
  return first;
}

void LeaseBook::report_by(std::uint32_t at, Tick due) {
  Room& room = rooms_[at];
  if (room.due <= due) return;
  room.due = due;
  due_.set(at, due);
}

void LeaseBook::end_if_over(Room& room, Tick now) {
  if (now >= room.until) room.held = 0;
}

std::uint64_t LeaseBook::room(std::uint32_t at, Tick now) const {
  return now < rooms_[at].until ? rooms_[at].held : 0;
}

void LeaseBook::spend(std::uint32_t at, std::uint64_t amount, Tick now) {
  Room& room = rooms_[at];
  end_if_over(room, now);
  room.held = without(room.held, amount);
  room.used_at = now;
  report_by(at, now + report_time_);
}

void LeaseBook::give_back(std::uint32_t at, std::uint64_t amount, Credit credit, Tick now) {
  Room& room = rooms_[at];
  end_if_over(room, now);
  // Of a lease that has ended nothing comes back: the store may have given it to others.
  if (credit == Credit::room && params_.mode == LeaseMode::leased && now < room.until)
    room.held += amount;
  report_by(at, now + report_time_);
}

void LeaseBook::recall(std::uint32_t at, Tick now) {
  rooms_[at].is_short = true;
  if (rooms_[at].held > 0) report_by(at, now);
}

void LeaseBook::end_periods() {
  for (Room& room : rooms_) {
    if (has_period(room.place.kind)) room.held = 0;
  }
}

std::uint64_t LeaseBook::others(std::uint32_t at, Tick now) const {
  const Room& room = rooms_[at];
  const bool is_known = room.others_at != Tick::min() && now - room.others_at < kOthersAgeMax;
  return is_known ? room.others : 0;
}

void LeaseBook::want(std::uint32_t at, std::uint64_t amount, Tick now) {
  Room& room = rooms_[at];
  room.least = room.wanted == 0 ? amount : std::min(room.least, amount);
  room.most = std::max(room.most, amount);
  room.wanted = std::min(room.wanted + amount, kSharedAmountMax);
  room.used_at = now;
  report_by(at, now);
}

std::optional<LeaseBook::Refusal> LeaseBook::refusal_since(std::uint32_t at,
                                                           std::uint64_t exchange) const {
  if (rooms_[at].refused == 0 || rooms_[at].refused < exchange) return std::nullopt;
  return Refusal{rooms_[at].fits_at};
}

std::optional<Tick> LeaseBook::settles_at(Tick now) const {
  return now < settles_at_ ? std::optional(settles_at_) : std::nullopt;
}

void LeaseBook::connected(Duration settling, Tick now) {
  is_connected_ = true;
  settles_at_ = settling > Duration{0} ? now + settling : Tick::min();
  for (std::uint32_t at = 0; at < rooms_.size(); ++at) report_by(at, now);
}

void LeaseBook::lost() {
  is_connected_ = false;
  is_exchanging_ = false;
  under_way_.clear();
}

std::optional<Tick> LeaseBook::next_due() const {
  return is_connected_ && !is_exchanging_ ? due_.next_due() : std::nullopt;
}

std::vector<std::uint32_t> LeaseBook::begin_exchange(std::size_t rooms_max, Tick now) {
  std::vector<std::uint32_t> rooms;
  if (!is_connected_ || is_exchanging_) return rooms;
  while (rooms.size() < rooms_max) {
    const std::optional<std::uint32_t> at = due_.pop_due(now);
    if (!at) break;
    rooms_[*at].due = Tick::max();
    rooms.push_back(*at);
  }
  if (rooms.empty()) return rooms;
  is_exchanging_ = true;
  ++exchange_;
  sent_ = now;
  num_completed_ = 0;
  num_asks_ += rooms.size();
  under_way_.clear();
  for (const std::uint32_t at : rooms) under_way_.push_back({at});
  return rooms;
}

void LeaseBook::complete(LeaseAsk& ask) {
  CHECK(num_completed_ < under_way_.size() && under_way_[num_completed_].room == ask.room);
  UnderWay& under_way = under_way_[num_completed_++];
  Room& room = rooms_[ask.room];
  end_if_over(room, sent_);
  ask.limit = std::min(ask.limit, kSharedAmountMax);
  const bool is_leased = params_.mode == LeaseMode::leased;
  const bool is_idle = room.wanted == 0 && room.used_at + renew_time_ <= sent_;
  std::uint64_t block = 0;
  if (is_leased && !room.is_short && !is_idle)
    block = ask.limit / 1000 * params_.block_permille +
            ask.limit % 1000 * params_.block_permille / 1000;
  // What is kept beyond need and block goes back: to be given to whoever needs it.
  const std::uint64_t keep_max = is_leased ? std::max(room.wanted, block) : 0;
  room.held = std::min(room.held, keep_max);
  ask.kept = room.held;
  under_way.needed = without(room.wanted, ask.kept);
  under_way.is_in_use = is_concurrency(room.place.kind) && !ask.charges.empty();
  ask.least = without(room.least, ask.kept);
  ask.most = without(room.most, ask.kept);
  ask.want = under_way.needed;
  // A room that is half empty is filled again before somebody has to wait for it.
  if (under_way.needed > 0 || ask.kept < block - block / 2)
    ask.want = without(room.wanted + block, ask.kept);
  room.least = room.most = room.wanted = 0;
}

void LeaseBook::end_exchange(const LeaseAnswers& answers, Tick now) {
  CHECK(is_exchanging_ && num_completed_ == under_way_.size());
  CHECK(answers.answers.size() == under_way_.size());
  is_exchanging_ = false;
  settles_at_ = answers.settling > Duration{0} ? now + answers.settling : Tick::min();
  const Duration time =
      params_.mode == LeaseMode::leased ? params_.lease_time : kSynchronousGrantTime;
  for (std::size_t i = 0; i < under_way_.size(); ++i) {
    const UnderWay& asked = under_way_[i];
    const LeaseAnswer& answer = answers.answers[i];
    Room& room = rooms_[asked.room];
    end_if_over(room, now);
    room.until = sent_ + time;  // the store reckons from a later moment
    if (now < room.until) room.held += answer.granted;
    num_granted_ += answer.granted;
    room.others = answer.others;
    room.others_at = now;
    room.is_short = answer.is_short;
    if (answer.granted < asked.needed) {
      room.refused = exchange_;
      room.fits_at.reset();
      if (answer.retry_after) room.fits_at = now + *answer.retry_after;
      ++num_refused_;
    }
    // The synchronous mode keeps no room: what nobody takes at once goes back.
    const bool is_leased = params_.mode == LeaseMode::leased;
    if (!is_leased && room.held > 0) report_by(asked.room, now + report_time_);
    if (room.held > 0 || asked.is_in_use) report_by(asked.room, sent_ + renew_time_);
  }
  if (answers.store_life != store_life_) {
    store_life_ = answers.store_life;
    for (std::uint32_t at = 0; at < rooms_.size(); ++at) report_by(at, now);
  }
}

}  // namespace sluice::gw
