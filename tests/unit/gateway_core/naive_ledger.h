// NaiveLedger: the ledger's promises as plain sums over a list of everything that was ever
// reserved. Slow and obvious: nothing is kept up to date, every question is answered from the list.
// Clock steps back of more than a day are not modelled.
#pragma once

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <vector>

#include "gateway/core/ledger.h"

namespace sluice::gw {

class NaiveLedger {
 public:
  struct When {
    std::int64_t second = 0, day = 0, month = 0;
    auto operator<=>(const When&) const = default;
  };
  struct Level {
    std::uint32_t account = 0;
    std::uint32_t in_model = 0;
  };
  struct Entry {
    std::vector<Level> path;
    std::uint32_t model = 0;
    Prices prices;
    bool is_open = true, is_prompt_returned = false, has_request = true;
    When prompt_at, output_at;
    std::uint64_t prompt = 0, cached = 0, unspent = 0, spent_running = 0, ungranted = 0;
    std::uint32_t choices = 0;
    std::map<When, std::uint64_t> spent;  // by the moment of its reservation
    std::int64_t admitted_unix_ms = 0;
  };

  explicit NaiveLedger(std::uint32_t num_models) : prices(num_models) {}

  void set_time(Tick tick, std::int64_t offset_ms) {
    now = tick;
    offset = offset_ms;
    day = std::max(day, day_at(now));
  }
  std::int64_t unix_ms(Tick at) const {
    return at.time_since_epoch() / std::chrono::milliseconds(1) + offset;
  }
  std::int64_t day_at(Tick at) const { return std::max(day, unix_ms(at) / 86'400'000); }
  static std::int64_t month_of(std::int64_t day_number) {
    std::int64_t month = 1970 * 12;
    for (std::int64_t left = day_number;; ++month) {
      const std::int64_t year = month / 12;
      const bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
      constexpr int kDays[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
      const int length = month % 12 == 1 && is_leap ? 29 : kDays[month % 12];
      if (left < length) return month;
      left -= length;
    }
  }
  When when() const {
    return {now.time_since_epoch() / std::chrono::seconds(1), day, month_of(day)};
  }

  // The process died: the next one knows of each entry what a journal and a book of whole seconds
  // know. Nothing is open, output counts from the admission on, and what was returned with its
  // prompt is forgotten. The calendar is that of the wall clock.
  void crash() {
    day = unix_ms(now) / 86'400'000;
    const auto second_of = [&](std::int64_t at_unix_ms) {
      const std::int64_t stored = (at_unix_ms + 999) / 1000 * 1000;
      const std::int64_t tick_ms = stored - offset;
      const std::int64_t second = tick_ms > 0 ? (tick_ms + 999) / 1000 : -(-tick_ms / 1000);
      return std::min<std::int64_t>(second, now.time_since_epoch() / std::chrono::seconds(1));
    };
    constexpr std::int64_t kOver = -1;
    for (Entry& entry : entries) {
      if (entry.is_prompt_returned) entry.path.clear();
      if (entry.path.empty()) continue;
      const std::int64_t its_day = entry.admitted_unix_ms / 86'400'000;
      const std::int64_t its_month = month_of(its_day), month = month_of(day);
      const When at{second_of(entry.admitted_unix_ms), its_day >= day ? day : kOver,
                    its_month >= month ? month : kOver};
      std::uint64_t output = 0;
      for (const auto& [when, tokens] : entry.spent) output += tokens;
      entry.path = path_of(entry.path.front().account, entry.model, now);
      entry.prompt_at = entry.output_at = at;
      entry.spent.clear();
      entry.spent[at] = output;
      entry.unspent = entry.spent_running = entry.ungranted = 0;
      entry.is_open = false;
    }
  }

  // The limit of one kind, and whether it is a model's.
  std::pair<std::uint64_t, bool> limit(std::uint32_t account, std::uint32_t model, LimitKind kind,
                                       Tick at) const {
    std::optional<std::uint64_t> general, own;
    const AccountSpec& spec = specs[account];
    if (spec.limits[kind]) general = spec.limits[kind];
    for (const auto& entry : spec.models)
      if (entry.model == model && entry.limits[kind]) own = entry.limits[kind];
    for (const auto& entry : spec.temporary) {
      if (unix_ms(at) / 1000 >= entry.until_unix_s) continue;
      if (!entry.limits[kind]) continue;
      if (!entry.model) general = entry.limits[kind];
      if (entry.model && *entry.model == model) own = entry.limits[kind];
    }
    if (own) return {*own, true};
    return {general.value_or(kNoLimit), false};
  }

  std::vector<Level> path_of(std::uint32_t account, std::uint32_t model, Tick at) const {
    std::vector<Level> path;
    for (std::optional<AccountId> up = AccountId{account}; up; up = specs[up->value].parent) {
      Level level{up->value, 0};
      for (std::size_t kind = 0; kind < kLimitKinds; ++kind)
        if (limit(up->value, model, static_cast<LimitKind>(kind), at).second)
          level.in_model |= 1u << kind;
      path.push_back(level);
    }
    return path;
  }

  // What one entry adds to one kind at `at`.
  std::uint64_t share(const Entry& entry, LimitKind kind, Tick at) const {
    const std::int64_t second = at.time_since_epoch() / std::chrono::seconds(1);
    const std::int64_t today = day_at(at), month = month_of(today);
    const auto in_minute = [&](const When& w) { return second - w.second <= 60; };
    const auto output = [&](const auto& counts, std::uint64_t price) {
      std::uint64_t sum = counts(entry.output_at) ? entry.unspent * price : 0;
      for (const auto& [w, tokens] : entry.spent) sum += counts(w) ? tokens * price : 0;
      return sum;
    };
    const std::uint64_t prompt = entry.is_prompt_returned ? 0 : entry.prompt;
    const auto in_day = [&](const When& w) { return w.day == today; };
    const auto in_month = [&](const When& w) { return w.month == month; };
    switch (kind) {
      case LimitKind::requests_per_minute:
        return entry.has_request && in_minute(entry.prompt_at) ? 1 : 0;
      case LimitKind::tokens_per_minute:
        return (in_minute(entry.prompt_at) ? prompt : 0) + output(in_minute, 1);
      case LimitKind::input_tokens_per_minute:
        return in_minute(entry.prompt_at) ? prompt : 0;
      case LimitKind::output_tokens_per_minute:
        return output(in_minute, 1);
      case LimitKind::tokens_per_day:
        return (in_day(entry.prompt_at) ? prompt : 0) + output(in_day, 1);
      case LimitKind::monthly_budget: {
        const std::uint64_t cost =
            prompt * entry.prices.input - entry.cached * (entry.prices.input - entry.prices.cached);
        return (in_month(entry.prompt_at) ? cost : 0) + output(in_month, entry.prices.output);
      }
      case LimitKind::concurrent_requests:
        return entry.is_open ? 1 : 0;
      case LimitKind::concurrent_kv_tokens:
        return entry.is_open ? entry.choices * entry.prompt + entry.spent_running + entry.unspent
                             : 0;
      case LimitKind::output_tokens_max:
        return 0;
    }
    return 0;
  }

  // `model`: of the model's own counters; nothing: the account's.
  std::uint64_t used(std::uint32_t account, std::optional<std::uint32_t> model, LimitKind kind,
                     Tick at) const {
    std::uint64_t sum = 0;
    for (const Entry& entry : entries) {
      for (const Level& level : entry.path) {
        if (level.account != account) continue;
        const bool is_models = (level.in_model >> static_cast<unsigned>(kind) & 1u) != 0;
        if (is_models != model.has_value() || (model && *model != entry.model)) continue;
        sum += share(entry, kind, at);
      }
    }
    return sum;
  }

  // used() of everything at once: [account][model + 1, 0 for the account's own][kind].
  using Table = std::vector<std::vector<Amounts>>;
  Table table(Tick at) const {
    Table sums(specs.size(), std::vector<Amounts>(prices.size() + 1, Amounts{}));
    for (const Entry& entry : entries) {
      for (std::size_t i = 0; i < kCounterKinds; ++i) {
        const std::uint64_t amount = share(entry, static_cast<LimitKind>(i), at);
        if (amount == 0) continue;
        for (const Level& level : entry.path)
          sums[level.account][(level.in_model >> i & 1u) != 0 ? entry.model + 1 : 0][i] += amount;
      }
    }
    return sums;
  }

  // The first kind that has no room.
  std::optional<LimitKind> shortage(const std::vector<Level>& path, std::uint32_t model,
                                    const Amounts& needed, Tick at) const {
    for (const Level& level : path) {
      if (specs[level.account].is_shadow) continue;
      for (std::size_t i = 0; i < kCounterKinds; ++i) {
        const auto kind = static_cast<LimitKind>(i);
        const bool is_models = (level.in_model >> i & 1u) != 0;
        const std::uint64_t most = limit(level.account, is_models ? model : ~0u, kind, at).first;
        if (needed[i] == 0 || most == kNoLimit) continue;
        const std::uint64_t has =
            used(level.account, is_models ? std::optional(model) : std::nullopt, kind, at);
        if (has + needed[i] > most) return kind;
      }
    }
    return std::nullopt;
  }
  bool fits(std::uint32_t account, std::uint32_t model, const Amounts& needed, Tick at) const {
    return !shortage(path_of(account, model, at), model, needed, at);
  }

  std::vector<AccountSpec> specs;
  std::vector<Prices> prices;
  std::vector<Entry> entries;
  Tick now{};
  std::int64_t offset = 0, day = 0;
};

}  // namespace sluice::gw
