// NaiveQuotaStore: what the script of gateway/store/quota_script.h promises, as plain values on a
// given time. It stands in for the store on virtual time, and the script must agree with it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>

#include "gateway/core/lease_book.h"

namespace sluice::test {

class NaiveQuotaStore {
 public:
  struct Entry {
    std::int64_t until = 0;  // ms
    std::uint64_t room = 0;
    std::int64_t period = 0;
    std::map<std::int64_t, std::uint64_t> seconds;
    std::uint64_t sum = 0;  // of days, months, concurrency
    std::int64_t session = 0;
  };
  struct Counter {
    std::map<std::string, Entry> gateways;
    std::int64_t short_until = 0;
  };
  struct Answer {
    bool is_stale = false;  // nothing was done
    std::int64_t life = 0, settling = 0;
    std::uint64_t granted = 0, others = 0;
    std::int64_t retry = 0;  // ms; -1: not before the period ends
    bool is_short = false;
  };

  Answer apply(const std::string& key, const std::string& gateway, const gw::LeaseAsk& ask,
               gw::LeaseMode mode, std::int64_t lease_ms, const std::string& run,
               std::int64_t session, std::int64_t now) {
    using gw::LimitKind;
    const LimitKind kind = ask.place.kind;
    const bool is_minute = gw::index_of(kind) < gw::kMinuteKinds;
    const bool is_period = kind == LimitKind::tokens_per_day || kind == LimitKind::monthly_budget;
    Answer answer;
    if (run != run_ || life_ > now) {
      run_ = run;
      life_ = now;
    }
    answer.life = life_;
    answer.settling = std::max<std::int64_t>(life_ + lease_ms - now, 0);
    Counter& counter = counters[key];
    if (const auto at = counter.gateways.find(gateway);
        at != counter.gateways.end() && at->second.session > session) {
      answer.is_stale = true;
      return answer;
    }
    const std::int64_t second = now / 1000;
    std::map<std::int64_t, std::uint64_t> seconds;  // of all, still in the window
    std::uint64_t rooms = 0;
    for (auto at = counter.gateways.begin(); at != counter.gateways.end();) {
      const auto& [name, entry] = *at;
      const auto here = at++;
      if (name == gateway) continue;
      const bool is_alive = entry.until > now;
      std::uint64_t charged = 0;
      for (const auto& [when, amount] : entry.seconds) {
        if (second - when >= 61) continue;
        charged += amount;
        seconds[when] += amount;
      }
      const std::int64_t ended = entry.until / 1000;
      if (is_minute && !is_alive && entry.room > 0 && second - ended < 61) {
        charged += entry.room;
        seconds[ended] += entry.room;
      }
      if (is_period && entry.period >= ask.period) charged = entry.sum;
      if (!is_minute && !is_period && is_alive) charged = entry.sum;
      const std::uint64_t held = is_alive ? entry.room : 0;
      rooms += held;
      answer.others += held + charged;
      // Nothing of it counts any longer; nor does anybody remember its session.
      const bool is_past = !is_period || entry.period < ask.period - 1;
      if (!is_alive && charged == 0 && is_past) counter.gateways.erase(here);
    }
    Entry own;
    own.session = session;
    own.period = is_period ? ask.period : 0;
    std::uint64_t charged = 0;
    for (const gw::LeaseCharge& charge : ask.charges) {
      charged += charge.amount;
      if (!is_minute) continue;
      const std::int64_t at = (now - std::int64_t{charge.age_ms}) / 1000;
      own.seconds[at] += charge.amount;
      seconds[at] += charge.amount;
    }
    if (!is_minute) own.sum = charged;
    const auto free = static_cast<std::int64_t>(ask.limit) -
                      static_cast<std::int64_t>(answer.others + charged + ask.kept);
    answer.is_short = counter.short_until > now;
    const auto least = static_cast<std::int64_t>(ask.least);
    const auto want = static_cast<std::int64_t>(ask.want);
    const auto most = static_cast<std::int64_t>(ask.most);
    const bool may_grant = answer.settling == 0 && (least > 0 || !answer.is_short);
    if (may_grant && free > 0 && free >= least)
      answer.granted = static_cast<std::uint64_t>(std::min(want, free));
    const auto granted = static_cast<std::int64_t>(answer.granted);
    if (answer.settling == 0 && granted < want) {
      const std::int64_t missing = most - (free - granted);
      answer.retry = -1;
      if (is_minute) {
        answer.retry = (second + 62) * 1000 - now;
        std::int64_t sum = 0;
        for (const auto& [at, amount] : seconds) {
          sum += static_cast<std::int64_t>(amount);
          if (sum < missing) continue;
          answer.retry = std::max<std::int64_t>((at + 61) * 1000 - now, 1);
          break;
        }
      }
      const bool may_return = static_cast<std::int64_t>(rooms) >= missing;
      if (may_return || (!is_minute && !is_period))
        answer.retry = answer.retry < 0 ? 1000 : std::min<std::int64_t>(answer.retry, 1000);
      if (rooms > 0 && granted < most) {
        counter.short_until = now + 2000;
        answer.is_short = true;
      }
    }
    own.room = ask.kept;
    if (mode == gw::LeaseMode::leased) {
      own.room += answer.granted;
    } else if (is_minute) {
      if (answer.granted > 0) own.seconds[second + 1] += answer.granted;
    } else {
      own.sum += answer.granted;
    }
    const bool is_running = !is_minute && !is_period && own.sum > 0;
    own.until = own.room > 0 || is_running ? now + lease_ms : 0;
    if (own.room > 0 || own.sum > 0 || !own.seconds.empty())
      counter.gateways[gateway] = own;
    else
      counter.gateways.erase(gateway);
    return answer;
  }

  // All data is lost.
  void clear() {
    counters.clear();
    run_.clear();
  }

  std::map<std::string, Counter> counters;

 private:
  std::string run_;
  std::int64_t life_ = 0;
};

}  // namespace sluice::test
