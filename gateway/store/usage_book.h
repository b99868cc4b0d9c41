// UsageBook: who used what, in SQLite, and enough of it to charge a ledger again after a restart.
// One entry per settled sequence, as its journal slot held it; entries are summed per account,
// model and second, minute, day and month of their admission (UTC).
//
// Idempotent over restarts: sequence ids are unique within a state directory and those of the last
// batches are kept, so that an entry whose journal slot outlived the commit is not counted twice.
// Kept are the last eight batches (when one is gathered, the slots of the last but one are free: a
// kill needs two) and all of the last two minutes (a loss of power brings slots back as the kernel
// last wrote them). A journal that was never opened before begins its ids again: then forget_ids()
// first.
//
// Accounts are known by the digest of their names, never by number; name_accounts() says what a
// digest stands for. One thread at a time. Not here: limits, prices, the decision to admit.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/store/sqlite.h"
#include "shared/journal.h"

namespace sluice::gw {

using AccountDigest = std::array<std::uint8_t, 32>;
// Of the tenant's name and of its key's digest; a tenant's own account has an empty one.
AccountDigest account_digest(std::string_view tenant, std::string_view key_digest);
std::uint64_t model_digest(std::string_view model);

struct UsageEntry {
  std::uint64_t sequence = 0;  // 0: no sequence, only a request that was counted; not idempotent
  AccountDigest account{};
  std::uint64_t model = 0;  // model_digest()
  std::int64_t admitted_unix_ms = 0;
  std::uint64_t requests = 0, prompt = 0, cached = 0, output = 0, cost = 0;
  std::uint64_t kv_token_ms = 0, device_ms = 0;
};
// What a journal slot is worth. `output`: what was accepted or, after a power loss, reserved.
UsageEntry usage_of(const Journal::Recovered& slot);
UsageEntry usage_in_full(const Journal::Recovered& slot);

struct AccountName {
  AccountDigest account{};
  std::string tenant, key;
};

struct UsageSum {
  std::string tenant;  // empty: never named
  AccountDigest account{};
  std::uint64_t model = 0;
  std::int64_t start_unix_s = 0;  // of the second, minute, day or month
  std::uint64_t requests = 0, prompt = 0, cached = 0, output = 0, cost = 0;
  std::uint64_t kv_token_ms = 0, device_ms = 0;
};
enum class UsagePeriod : std::uint8_t { second, minute, day, month };
// The month of a row of usage_days, in SQL.
inline constexpr const char* kMonthStart =
    "CAST(strftime('%s', start, 'unixepoch', 'start of month') AS INTEGER)";

class UsageBook {
 public:
  // Errors of both: quota_store_unavailable (disk full), io_error, bad_file.
  static Result<UsageBook> open(const std::string& path);
  // All or nothing, durable when it returns. REQUIRES: none of the sequences was added before.
  Result<void> add_new(std::span<const UsageEntry> entries, std::int64_t now_unix_s);
  // After a restart: leaves out what was added before and keeps all ids for as long as if it had
  // been now. Says how many were new.
  Result<std::uint64_t> add(std::span<const UsageEntry> entries, std::int64_t now_unix_s);

  // What digests stand for; all or nothing. `key`: its public id or name, empty of a tenant.
  Result<void> name_accounts(std::span<const AccountName> names);
  Result<void> name_models(std::span<const std::string> models);
  Result<void> forget_ids();
  // Sums of periods that start at `from_unix_s` or later, oldest first.
  Result<std::vector<UsageSum>> sums(UsagePeriod period, std::int64_t from_unix_s);

 private:
  explicit UsageBook(Sqlite database) : database_(std::move(database)) {}
  Result<void> prepare();
  Result<void> write(std::span<const UsageEntry> entries);
  Result<void> write_batch(std::span<const UsageEntry> entries, std::int64_t now_unix_s);
  Result<std::set<std::uint64_t>> known_of(std::span<const UsageEntry> entries);
  Result<std::int64_t> account_row(const AccountDigest& account);
  struct RowKey {
    std::int64_t start = 0;         // unix seconds
    std::int64_t has_fraction = 0;  // of a second: then 1
    std::int64_t account = 0;
    std::uint64_t model = 0;
    auto operator<=>(const RowKey&) const = default;
  };
  Result<void> add_row(std::size_t table, const RowKey& key, const UsageEntry& sum);
  Result<void> prune(std::int64_t now_unix_s);

  Sqlite database_;
  std::optional<Statement> insert_batch_, insert_account_, find_account_, name_, prune_ids_,
      prune_seconds_, prune_minutes_;
  std::array<std::optional<Statement>, 3> add_;         // by table: seconds, minutes, days
  std::map<AccountDigest, std::int64_t> account_rows_;  // known to be in the file
  std::vector<std::uint8_t> sequences_;                 // scratch
};

}  // namespace sluice::gw
