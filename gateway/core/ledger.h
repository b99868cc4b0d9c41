// Ledger: who may spend what. Accounts form a tree (parent > tenant > key). Before a request waits,
// its exact prompt and its output are reserved against every limit of its account and of all above
// it: every level passes and all are charged, or none.
//
//   open --> extend* --> settle* --> close_choice* --> close      (Reservation: a move-only ticket)
//             more        tokens       what a finished   the rest returns; consumes the ticket,
//             output      accepted     choice left       so nothing can be closed twice
//
// Windows. Minute kinds: exact sliding minute; all tokens of a reservation lie in the second in
// which they were reserved and return to it. An extension moves what is unused to its own second.
// Day and month: in UTC, by the period of the reservation; what returns after its end is dropped.
// The wall clock may jump (set_wall): forward begins the next period at once; back by up to a day
// holds the present period until its end comes again; farther back means that the clock had been
// wrong: the sums of the present period stay and take the earlier label, and what was reserved
// before does not return. So a jump grants a limit at most once for each time that the clock enters
// a period. Minutes never look at the wall clock.
//
// Overshoot. exact, incremental: none. quantile: a request that outgrows its prediction goes on;
// while a counter is above its limit nobody is admitted, so that the most by which it can pass it
// is the sum of (bound - granted) over the reservations that were open at the last admission.
// Limits that were lowered: fault() names the reservations that cannot go on as they are, newest
// first. try_shrink() takes from one what is too much, or it is stopped; after which no reservation
// holds a part of a counter above its limit.
//
// Invariants: 1. spent + reserved <= limit in every counter, but for what is named above and for
// shadow accounts; 2. each reservation ends once; 3. what an account counts is the sum of what was
// reserved at it and below it, for as long as nobody changes parents; 4. refusals change nothing.
// Retry-After is the earliest second at which the same ask would fit if nobody else came and
// nothing returned; an ask that never would has none. Of concurrency it is an estimate.
//
// Shared (lease_book.h): with a LeaseBook, limits are those of all gateways together. A request is
// then admitted only from what is leased here, beside everything above; lease() asks for the rest.
//
// Memory: an account takes about 400 bytes, and 2 KiB for its minute while it was used in the last
// one. Nothing is allocated for requests of accounts that had some in the last minute.
// Pure; decision thread only. Ticks that run backwards count as standing still.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "gateway/core/generation.h"
#include "gateway/core/lease_book.h"
#include "gateway/core/ledger_limits.h"
#include "gateway/core/ledger_state.h"
#include "gateway/core/quota_view.h"
#include "gateway/core/rate_limit.h"
#include "gateway/core/utc_calendar.h"
#include "shared/result.h"

namespace sluice::gw {

struct LedgerParams {
  std::uint32_t num_models = 1;           // <= kModelsMax
  std::uint32_t reservations_max = 1024;  // open at once; fixed memory
};

struct Ask {
  AccountId account;
  std::uint32_t model = 0;
  std::uint32_t choices = 1;
  std::uint32_t prompt_tokens = 0;         // exact
  std::uint32_t output_tokens_max = 0;     // of one choice
  std::uint32_t output_tokens_likely = 0;  // of one choice, for quantile; 0: not known
  std::uint64_t tag = 0;                   // the caller's name for it
};

// What a request holds. Empty after it was moved from or closed.
class Reservation {
 public:
  Reservation() = default;
  Reservation(Reservation&& other) noexcept : at_(std::exchange(other.at_, {})) {}
  Reservation& operator=(Reservation&& other) noexcept;  // REQUIRES: *this is empty
  explicit operator bool() const { return at_.generation != 0; }

  struct Key {  // names it without owning it
    std::uint32_t index = 0;
    std::uint32_t generation = 0;  // 0: none
  };
  Key key() const { return at_; }

 private:
  friend class Ledger;
  explicit Reservation(Key at) : at_(at) {}
  Key at_;
};

enum class PromptUse : std::uint8_t { unused, computed };

struct ModeCounters {
  std::uint64_t opened = 0;
  std::uint64_t granted = 0;    // output tokens reserved
  std::uint64_t spent = 0;      // of them used: spent / granted is the admitted utilization
  std::uint64_t overshoot = 0;  // output tokens granted beyond a limit (quantile)
};

class Ledger {
 public:
  explicit Ledger(const LedgerParams& params);

  // ---- configuration and time
  // Makes account num_accounts() or changes an existing one; acts on the next call. Errors, with
  // nothing changed: invalid_value (unknown parent, cycle, deeper than kAccountDepthMax, unknown or
  // repeated model).
  Result<void> set_account(AccountId id, const AccountSpec& spec);
  Result<void> set_prices(std::uint32_t model, const Prices& prices);  // of later reservations
  void set_wall(Tick now, std::int64_t unix_ms);
  // Temporary limits end and periods turn; open() and the like do it too.
  void advance(Tick now);
  std::optional<Tick> next_change() const;  // the next end of a temporary limit

  // ---- requests
  // `typical`: measured duration of a request, for the Retry-After of concurrency.
  // Errors: requests_rate_limited, tokens_rate_limited, concurrency_limit (all with retry_after),
  // insufficient_quota, request_exceeds_quota_capacity (it never fits), invalid_value (more output
  // than allowed), invalid_api_key (blocked, revoked), overloaded (reservations_max).
  Result<void> check_request(AccountId id, std::uint32_t model, Tick now, Duration typical) const;
  Result<void> count_request(AccountId id, Tick now);  // generates nothing, for no model
  Result<Reservation> open(const Ask& ask, Tick now, Duration typical);
  // More output, at most what is left of the bound. Errors as of open(); nothing changes then.
  Result<void> extend(const Reservation& reservation, std::uint32_t tokens, Tick now,
                      Duration typical);
  // `tokens` of output were accepted. REQUIRES: granted before (quantile: grants what is missing).
  void settle(const Reservation& reservation, std::uint32_t tokens, Tick now);
  // So many prompt tokens came from the prefix cache: they cost less. At most once.
  void settle_prompt(const Reservation& reservation, std::uint32_t cached_tokens);
  // One choice is over: of `granted` tokens it used `used`, all of them settled.
  void close_choice(const Reservation& reservation, std::uint32_t granted, std::uint32_t used);
  void close(Reservation reservation, PromptUse prompt);
  // Output of one choice that is granted at once: the whole bound, or the first kGrantTokens.
  std::uint32_t first_grant(const Ask& ask) const;
  ReservationMode mode(AccountId id) const { return accounts_[id.value].spec.mode; }
  const Prices& prices(const Reservation& reservation) const { return at(reservation).prices; }

  // ---- limits shared with other gateways
  // Before the first request; `leases` outlives the ledger.
  void share(LeaseBook& leases) { leases_ = &leases; }
  // Whether open(), count_request(), extend() would find enough leased. pending: what is missing is
  // asked of the store with the book's next_exchange(); after it, try again with its number as
  // `since`. What fails for other reasons is ready: the call itself says why. Errors, when the
  // store had too little: as of open(), with the Retry-After of all gateways;
  // quota_store_unavailable (away, or new and still hearing of what was charged). Without a book:
  // always ready.
  Result<LeaseState> lease(const Ask& ask, std::uint64_t since, Tick now);
  Result<LeaseState> lease_request(AccountId id, std::uint64_t since, Tick now);
  Result<LeaseState> lease_extension(const Reservation& reservation, std::uint32_t tokens,
                                     std::uint64_t since, Tick now);
  // The store answers again, and may know less than before: everything is reported. It grants
  // nothing for `settling`.
  void report_leases(Duration settling, Tick now);
  // The next exchange with the store, when one is due; its asks, at most `asks_max`.
  std::vector<LeaseAsk> begin_exchange(std::size_t asks_max, Tick now);

  // ---- after a restart, before the first request
  // What a former process settled at `unix_ms`: charged to the account and to all above it, with
  // what they are now. Minutes that are over and periods that have ended take nothing; a time in
  // the future is taken for now. Errors, with nothing changed: invalid_value.
  struct SettledCharge {
    AccountId account;
    std::optional<std::uint32_t> model;  // nothing: of none that exists now
    std::int64_t unix_ms = 0;
    Amounts amounts{};  // minute and calendar kinds
  };
  Result<void> charge_settled(const SettledCharge& settled, Tick now);

  // ---- after limits changed
  std::vector<Reservation::Key> open_newest_first() const;
  // Of them, those below accounts whose limits or standing changed since the last call: ask fault()
  // of each. O(open reservations), and nothing where nothing changed.
  std::vector<Reservation::Key> take_affected_newest_first();
  bool have_limits_changed() const { return !changed_.empty(); }
  // Why this reservation may not go on. Nothing: it may, or it has ended.
  std::optional<Error> fault(Reservation::Key key, Tick now) const;
  // Gives up as much unspent output as its limits ask for, if that suffices and some is left. It is
  // incremental from then on: at the end of what is left it may be extended. The tokens given up;
  // 0: nothing changed, its fault stands. Never of quantile, which does not stop at what it holds.
  std::uint64_t try_shrink(Reservation::Key key, Tick now);
  std::uint64_t unspent(const Reservation& reservation) const { return at(reservation).unspent; }
  std::uint64_t tag(Reservation::Key key) const;  // REQUIRES: open

  // ---- views
  LimitsView limits(AccountId id, Tick now) const;  // of the level that binds most
  // By kind, of the levels that are enforced the one with the least left.
  QuotaView quota(AccountId id, Tick now) const;
  QuotaView own_quota(AccountId id, Tick now) const;  // of this account's own counters
  std::vector<ModelQuotaView> model_quotas(AccountId id, Tick now) const;
  std::uint64_t used(AccountId id, LimitKind kind, Tick now) const;  // spent + reserved, all models
  std::uint64_t used(AccountId id, std::uint32_t model, LimitKind kind, Tick now) const;
  std::uint64_t limit(AccountId id, LimitKind kind) const;  // in force now; kNoLimit
  std::uint64_t shadow_refusals(AccountId id) const { return accounts_[id.value].shadow_refusals; }
  // Whether the account or one above it has a limit that can refuse. Shadow accounts cannot.
  bool is_limited(AccountId id) const;
  const AccountSpec& spec(AccountId id) const { return accounts_[id.value].spec; }
  const ModeCounters& mode_counters(ReservationMode mode) const;
  std::size_t num_accounts() const { return accounts_.size(); }
  std::size_t num_open() const { return num_open_; }
  std::size_t num_minutes() const { return minutes_.size(); }  // blocks of 2 KiB
  void check_invariants() const;                               // O(accounts + reservations)

  // ---- restart (ledger_state.h)
  LedgerState export_state(Tick now) const;
  // Replaces all balances and reservations; doing it twice is doing it once. The restored
  // reservations, in the order of the state. Errors: invalid_value, nothing changed.
  Result<std::vector<Reservation>> import_state(const LedgerState& state, Tick now);

 private:
  static constexpr std::uint32_t kNone = 0xffffffffu;

  struct DaySum {
    DayNumber day = 0;
    std::uint64_t sum = 0;
  };
  struct MonthSum {
    MonthNumber month = 0;
    std::uint64_t sum = 0;
  };
  // One set of counters: an account's own, or those of a model with overrides at it.
  struct Counters {
    std::array<std::uint64_t, kLimitKinds> limit;  // in force
    std::uint32_t owned = 0;                       // bit per kind: of models, what is counted here
    std::uint32_t minute = kNone;                  // index into minutes_
    std::uint32_t lease = kNone;                   // of the LeaseBook: the first of its rooms
    DaySum day;
    MonthSum month;
    std::uint64_t requests = 0;  // held
    std::uint64_t kv_tokens = 0;
    Counters() { limit.fill(kNoLimit); }
  };
  struct ModelSet {
    std::uint32_t model;
    Counters counters;
  };
  struct Account {
    AccountSpec spec;
    Counters own;
    std::vector<ModelSet> models;      // places are stable
    std::vector<std::uint32_t> below;  // accounts whose parent this is
    std::uint64_t shadow_refusals = 0;
    bool has_changed = false;  // is in changed_
  };
  struct Minute {  // the windows of one set of counters
    std::array<RateWindow, kMinuteKinds> windows;
    std::uint32_t account = 0;
    std::uint32_t model_at = kNone;  // place in account.models
  };
  struct Level {
    std::uint32_t account = 0;
    std::uint32_t model_at = kNone;
    std::uint32_t in_model = 0;  // bit per kind: charged to the model's counters
  };
  struct Path {
    std::array<Level, kAccountDepthMax> levels{};
    std::uint32_t depth = 0;
    std::span<const Level> span() const { return std::span(levels).first(depth); }
  };
  static constexpr std::int32_t kEnded = -1;  // label of a period that no counter has
  struct Mark {                               // when something was reserved
    RateWindow::Slot slot = 0;
    DayNumber day = 0;
    MonthNumber month = 0;
  };
  struct Open {
    std::uint32_t generation = 0;  // of the place; odd: open
    Path path;
    std::uint32_t model = 0;
    ReservationMode mode{};
    Prices prices;
    Mark prompt_at, output_at;
    std::uint64_t prompt_tokens = 0;
    std::uint64_t unspent = 0;        // granted and not settled
    std::uint64_t spent_running = 0;  // settled, of choices that are not closed
    std::uint64_t ungranted = 0;      // of the bound
    std::uint32_t choices = 0;        // not closed
    bool is_prompt_settled = false;
    std::uint64_t order = 0;
    std::uint64_t tag = 0;
    std::uint64_t kv_tokens() const { return choices * prompt_tokens + spent_running + unspent; }
  };
  struct LimitAt {
    std::uint64_t limit;
    bool is_models;
  };
  struct Shortfall {
    const Level* level;
    LimitKind kind;
    std::uint64_t limit, used;
    std::uint64_t running;  // requests held there
    bool is_models;         // of the model's counters
  };

  // ledger.cc
  Path path_of(AccountId id, std::uint32_t model) const;
  Result<void> check_spec(AccountId id, const AccountSpec& spec) const;
  std::size_t levels_below(std::uint32_t account) const;
  void hang(std::uint32_t account, std::optional<AccountId> parent);
  void note_change(std::uint32_t account);
  void refresh(std::uint32_t account);
  LimitAt limit_at(const AccountSpec& spec, std::uint32_t model, LimitKind kind,
                   std::int64_t unix_s) const;
  void rebuild_ends();
  void turn_calendar(DayNumber day);
  void relabel(DayNumber day);
  std::int64_t unix_ms(Tick now) const;
  Tick tick_of(std::int64_t unix_ms) const;
  const Counters& counters(const Level& level, LimitKind kind) const;
  Counters& counters(const Level& level, LimitKind kind);
  Minute& minute_of(const Level& level, LimitKind kind);
  void charge(const Path& path, const Amounts& amounts);  // now
  void give_back(const Path& path, const Amounts& amounts, const Mark& mark);
  void release(const Path& path, std::uint64_t requests, std::uint64_t kv_tokens);
  Reservation::Key take_place();
  void regrant(Open& open, std::uint64_t tokens);
  void give_back_output(Open& open, std::uint64_t tokens);
  Mark mark() const { return {RateWindow::slot_of(now_), day_, month_}; }
  Open& at(const Reservation& reservation);
  const Open& at(const Reservation& reservation) const;

  // ledger_state.cc
  Result<void> check_state(const LedgerState& state) const;
  std::uint32_t model_place(std::uint32_t account, std::uint32_t model);
  void clear();
  Reservation restore(const OpenReservation& plain, const Mark& prompt_at, const Mark& output_at);
  void expire_unbacked();

  // ledger_views.cc
  CounterView view(std::uint32_t account, std::uint32_t model_at, LimitKind kind, Tick at,
                   std::uint64_t reserved) const;
  std::vector<Amounts> reserved_by(std::uint32_t account, Tick at) const;

  // ledger_leases.cc
  Amounts opening_amounts(const Ask& ask) const;
  void recall_leases(const Counters& counters);
  bool is_shared(const Level& level, LimitKind kind) const;
  std::uint32_t room_of(const Level& level, LimitKind kind);
  void spend_room(const Level& level, LimitKind kind, std::uint64_t amount);
  void give_back_room(const Level& level, LimitKind kind, std::uint64_t amount,
                      LeaseBook::Credit credit);
  LeaseBook::Credit credit_of(const Mark& mark) const;
  Amounts extension_needs(const Open& open, std::uint64_t tokens) const;
  bool has_room(const Path& path, const Amounts& needed);
  Result<LeaseState> lease(const Path& path, const Amounts& needed, std::uint64_t since);
  Error shared_refusal(const Level& level, LimitKind kind, std::uint64_t needed,
                       const LeaseBook::Refusal& refusal) const;
  std::vector<LeaseCharge> charges(const Counters& counters, LimitKind kind) const;
  std::uint64_t others(const Counters& counters, LimitKind kind, Tick now) const;

  // ledger_checks.cc
  std::uint64_t used(const Counters& counters, LimitKind kind, Tick now) const;
  std::optional<Shortfall> find_shortfall(std::span<const Level> path, const Amounts& needed,
                                          Tick now) const;
  static bool is_models(const Level& level, LimitKind kind);
  Shortfall shortfall_of(const Level& level, LimitKind kind, std::uint64_t limit,
                         std::uint64_t used, bool is_models) const;
  void count_shadow_refusals(const Path& path, const Amounts& needed);
  std::optional<Shortfall> find_extension_shortfall(const Open& open, std::uint64_t tokens) const;
  static Amounts extension_amounts(const Open& open, std::uint64_t tokens);
  static Amounts prompt_amounts(const Open& open);  // what returns when it was not computed
  const Counters& counters_of(const Account& account, std::uint32_t model_at) const {
    return model_at == kNone ? account.own : account.models[model_at].counters;
  }
  std::optional<Shortfall> find_shortfall_at(std::span<const Level> path, std::uint32_t model,
                                             const Amounts& needed, Tick at) const;
  Tick next_end(std::span<const Level> path, Tick after) const;
  std::optional<Tick> fits_at(std::span<const Level> path, std::uint32_t model, Amounts needed,
                              Tick now, Duration typical) const;
  Tick release_of(const Shortfall& shortfall, std::uint64_t needed, Tick at) const;
  Error refusal(const Shortfall& shortfall, std::span<const Level> path, std::uint32_t model,
                const Amounts& needed, Tick now, Duration typical) const;
  std::optional<Error> standing_error(std::span<const Level> path) const;
  bool holds(const Open& open, LimitKind kind, Tick now) const;
  bool is_overdrawn(const Open& open, const Level& level, LimitKind kind, Tick now) const;
  std::uint64_t excess_output(const Open& open) const;

  LedgerParams params_;
  std::vector<Account> accounts_;
  std::vector<Prices> prices_;
  std::deque<Minute> minutes_;
  std::size_t minute_hand_ = 0;  // next block to look at for reuse
  std::vector<Open> open_;
  std::vector<std::uint32_t> free_;
  std::size_t num_open_ = 0;
  std::uint64_t next_order_ = 1;
  std::set<std::pair<std::int64_t, std::uint32_t>> ends_;  // of temporary limits: unix s, account
  std::array<ModeCounters, kReservationModes> modes_{};
  Tick now_ = Tick::min();
  std::int64_t wall_offset_ms_ = 0;  // unix ms - tick ms
  DayNumber day_ = 0;
  MonthNumber month_ = 0;
  bool is_calendar_set_ = false;
  Tick next_turn_ = Tick::min();        // of the calendar or a temporary limit
  std::vector<std::uint32_t> changed_;  // accounts, each once
  LeaseBook* leases_ = nullptr;
};

}  // namespace sluice::gw
