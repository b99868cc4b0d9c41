// LeaseBook: what this gateway may spend of limits that several gateways share through a store.
//
// The store (gateway/store/quota_script.h) keeps, per limit and gateway, two things: what the
// gateway has charged (by second, day or month; for concurrency what runs) and its room, what it
// may still charge on its own until its lease ends. It adds to a room only what is free:
//
//   charged by all, in the window + rooms of all whose lease has not ended + granted <= limit
//
//   room --charge--> charged --report--> the store's copy      what is not reported yet is still
//     ^---returned---'                                         in the store's copy of the room
//
// So every unit counts in the store from its grant until 60 s after its admission. A room whose
// lease ended unreported counts there as charged at that moment: no interval of 60 s of all
// gateways together holds more than the limit, leased or not, whoever dies or is cut off. Reports
// carry the whole truth of a gateway and replace the former one: a lost answer or a repeated ask do
// no harm, and a store that lost its data hears all of it again.
//
// Overshoot. Minutes: 0. Days and months: 0, but for a gateway that cannot report for a lease time:
// its room is free again then, and what it admitted since its last report is missing until it (or
// the one that is started on its state directory) reports. That is at most the room: the block
// (block_permille of the limit), and what requests asked for beyond it. synchronous: 0 everywhere;
// each admission is charged in the store before it is made, and no room is kept. Concurrency:
// running requests outlive a lost lease, so it counts gateways whose lease holds.
// A store that lost its data grants nothing for one lease time, until all gateways have reported
// again; of one that stays away longer, what it charged in the window is missing meanwhile. The
// clock of the store must not jump: a jump ahead frees what it jumps over until the next reports.
//
// Shared are all kinds that count (LimitKind), of each account with a limit that can refuse. Not
// shared: output_tokens_max, shadow accounts, queues, circuit breakers.
//
// One exchange with the store is under way at a time and carries many asks; what comes meanwhile
// shares the next one. Pure; decision thread only. A room is 120 bytes; an account with limits
// takes eight once it was used.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "gateway/core/due_queue.h"
#include "gateway/core/ledger_limits.h"
#include "shared/clock.h"

namespace sluice::gw {

enum class LeaseMode : std::uint8_t { leased, synchronous };

struct LeaseParams {
  LeaseMode mode = LeaseMode::leased;
  Duration lease_time{std::chrono::seconds{3}};
  std::uint32_t block_permille = 50;  // of a limit: leased beyond what a request needs
};

// The store reckons with doubles: larger limits are taken for this one, which opens no room.
inline constexpr std::uint64_t kSharedAmountMax = std::uint64_t{1} << 53;
// A grant of the synchronous mode holds for so long after it was asked for: the store charges it
// to the second that follows the ask's.
inline constexpr Duration kSynchronousGrantTime{std::chrono::seconds{1}};

struct LeasePlace {
  AccountId account;
  std::optional<std::uint32_t> model;  // nothing: the account's own counter
  LimitKind kind{};
};

// What was charged: of minutes by second, each with the time since its end; else one sum.
struct LeaseCharge {
  std::uint32_t age_ms = 0;
  std::uint64_t amount = 0;
  bool operator==(const LeaseCharge&) const = default;
};

struct LeaseAsk {
  std::uint32_t room = 0;  // LeaseBook's number of it
  LeasePlace place;
  std::uint64_t limit = 0;
  std::int32_t period = 0;  // day or month of the charges
  std::vector<LeaseCharge> charges;
  std::uint64_t kept = 0;   // of the room; the rest of it is given up
  std::uint64_t least = 0;  // less helps nobody; 0: whatever there is
  std::uint64_t most = 0;   // the largest single need
  std::uint64_t want = 0;
};

struct LeaseAnswer {
  std::uint64_t granted = 0;
  std::uint64_t others = 0;  // charged or held by other gateways
  // Of what was not granted: when `most` would fit. Nothing: not before its day or month ends.
  std::optional<Duration> retry_after;
  bool is_short = false;  // someone was refused what rooms hold: keep no more than is needed
};

struct LeaseAnswers {
  std::uint64_t store_life = 0;  // another number: the store may have lost what it knew
  Duration settling{0};          // it grants nothing for so long
  std::vector<LeaseAnswer> answers;
};

enum class LeaseState : std::uint8_t { ready, pending };

class LeaseBook {
 public:
  explicit LeaseBook(const LeaseParams& params);

  // ---- rooms; `at` is the first of an account's plus index_of(kind)
  std::uint32_t add(AccountId account, std::optional<std::uint32_t> model);
  const LeasePlace& place(std::uint32_t at) const { return rooms_[at].place; }
  std::uint64_t room(std::uint32_t at, Tick now) const;
  void spend(std::uint32_t at, std::uint64_t amount, Tick now);
  enum class Credit : std::uint8_t { none, room };
  bool returns_room() const { return params_.mode == LeaseMode::leased; }  // at all
  void give_back(std::uint32_t at, std::uint64_t amount, Credit credit, Tick now);
  void recall(std::uint32_t at, Tick now);  // its limit changed: what is not needed goes back
  void end_periods();                       // of days and months: their rooms end with them
  // What other gateways have of it, as far as it is known; 0 when that is older than a minute.
  std::uint64_t others(std::uint32_t at, Tick now) const;

  // ---- needs
  void want(std::uint32_t at, std::uint64_t amount, Tick now);
  // The exchange that will carry what is wanted now.
  std::uint64_t next_exchange() const { return exchange_ + 1; }
  struct Refusal {
    std::optional<Tick> fits_at;
  };
  // The store had too little, in that exchange or a later one.
  std::optional<Refusal> refusal_since(std::uint32_t at, std::uint64_t exchange) const;

  // ---- the store
  bool is_connected() const { return is_connected_; }
  // Until when it grants nothing because gateways may still have to report.
  std::optional<Tick> settles_at(Tick now) const;
  void connected(Duration settling, Tick now);  // everything is reported
  void lost();                                  // what is under way has no answer
  std::optional<Tick> next_due() const;         // nothing while an exchange is under way

  // Begins an exchange when something is due: the rooms that take part, at most `rooms_max`.
  // complete() is then called for each in this order, with what the ledger knows.
  std::vector<std::uint32_t> begin_exchange(std::size_t rooms_max, Tick now);
  void complete(LeaseAsk& ask);                              // given room, place, limit, charges
  void end_exchange(const LeaseAnswers& answers, Tick now);  // REQUIRES: one answer per ask
  std::uint64_t num_granted() const { return num_granted_; }
  std::uint64_t num_asks() const { return num_asks_; }
  std::uint64_t num_refused() const { return num_refused_; }

 private:
  struct Room {
    LeasePlace place;
    std::uint64_t held = 0;
    Tick until = Tick::min();                       // the lease ends: `held` is void
    std::uint64_t least = 0, most = 0, wanted = 0;  // needs of the next exchange
    std::uint64_t others = 0;
    Tick others_at = Tick::min();
    std::uint64_t refused = 0;  // exchange
    std::optional<Tick> fits_at;
    Tick used_at = Tick::min();
    Tick due = Tick::max();
    bool is_short = false;
  };
  struct UnderWay {
    std::uint32_t room;
    std::uint64_t needed = 0;  // `want` without the block
    bool is_in_use = false;    // concurrency: its lease must not end
  };
  void report_by(std::uint32_t at, Tick due);
  void end_if_over(Room& room, Tick now);

  const LeaseParams params_;
  const Duration report_time_;  // charges reach the store within it
  const Duration renew_time_;
  std::vector<Room> rooms_;
  DueQueue due_;
  std::vector<UnderWay> under_way_;
  std::size_t num_completed_ = 0;
  bool is_exchanging_ = false;
  Tick sent_ = Tick::min();
  std::uint64_t exchange_ = 0;
  bool is_connected_ = false;
  std::uint64_t store_life_ = 0;
  Tick settles_at_ = Tick::min();
  std::uint64_t num_granted_ = 0, num_asks_ = 0, num_refused_ = 0;
};

}  // namespace sluice::gw
