// UsageBook: one transaction per batch, three sums per account, model and batch.
#include "gateway/store/usage_book.h"

#include <openssl/evp.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "gateway/core/ledger_limits.h"
#include "gateway/core/utc_calendar.h"
#include "gateway/store/schema_usage.h"
#include "shared/check.h"

namespace sluice::gw {
namespace {

constexpr std::int64_t kIdsKeptS = 120;
constexpr std::int64_t kBatchesKept = 8;
constexpr std::int64_t kSecondsKept = 120;
constexpr std::int64_t kMinutesKeptS = 8 * 86'400;  // days and months are kept for good
// Of one sequence: a million tokens for most of a day. Sums of hostile slots stay far below 2^62.
constexpr std::uint64_t kKvTokenMsMax = 1ull << 46;
constexpr std::array<const char*, 3> kTables{"usage_seconds", "usage_minutes", "usage_days"};

AccountDigest sha256(std::string_view text) {
  AccountDigest digest{};
  CHECK(EVP_Digest(text.data(), text.size(), digest.data(), nullptr, EVP_sha256(), nullptr) == 1);
  return digest;
}

// Of the second, minute or day that the table has rows for.
std::int64_t row_start(std::size_t table, std::int64_t unix_ms) {
  if (table == 0) return (unix_ms + 999) / 1000;  // rounded up: not free sooner than it would be
  if (table == 1) return unix_ms / 60'000 * 60;
  return day_start_unix_ms(day_number(unix_ms)) / 1000;
}

UsageEntry usage_of(const Journal::Recovered& slot, std::uint64_t output) {
  const JournalEntry& from = slot.entry;
  UsageEntry entry;
  entry.sequence = from.sequence.value;
  entry.account = from.tenant_key;
  entry.model = from.model_key;
  constexpr auto kMsMax = static_cast<std::uint64_t>(kUnixMsMax);
  entry.admitted_unix_ms = static_cast<std::int64_t>(std::min(from.admitted_unix_ms, kMsMax));
  entry.requests = from.choice == 0 ? 1 : 0;
  // The slot comes from a file: bounded here, so that no product overflows.
  entry.prompt = std::min<std::uint64_t>(from.prompt_tokens, kContextTokensMax);
  entry.cached = std::min<std::uint64_t>(slot.cached, entry.prompt);
  entry.output = std::min<std::uint64_t>(output, kContextTokensMax);
  entry.cost = (entry.prompt - entry.cached) * std::min(from.price_input, kPriceMax) +
               entry.cached * std::min(from.price_cached, kPriceMax) +
               entry.output * std::min(from.price_output, kPriceMax);
  entry.kv_token_ms = std::min(slot.use.kv_token_ms, kKvTokenMsMax);
  entry.device_ms = slot.use.device_ms;
  return entry;
}

void add_to(UsageEntry& sum, const UsageEntry& entry) {
  sum.requests += entry.requests;
  sum.prompt += entry.prompt;
  sum.cached += entry.cached;
  sum.output += entry.output;
  sum.cost += entry.cost;
  sum.kv_token_ms += entry.kv_token_ms;
  sum.device_ms += entry.device_ms;
}

std::int64_t signed_of(std::uint64_t value) {
  return static_cast<std::int64_t>(value);
}

}  // namespace

AccountDigest account_digest(std::string_view tenant, std::string_view key_digest) {
  std::string text(tenant);
  text.push_back('\0');
  text.append(key_digest);
  return sha256(text);
}

std::uint64_t model_digest(std::string_view model) {
  const AccountDigest digest = sha256(model);
  std::uint64_t first = 0;
  std::memcpy(&first, digest.data(), sizeof first);
  return first;
}

UsageEntry usage_of(const Journal::Recovered& slot) {
  return usage_of(slot, slot.accepted);
}

UsageEntry usage_in_full(const Journal::Recovered& slot) {
  const std::uint64_t reserved = slot.entry.reserved_tokens;
  const std::uint64_t prompt = slot.entry.prompt_tokens;
  const std::uint64_t output = reserved > prompt ? reserved - prompt : 0;
  Journal::Recovered uncached = slot;
  uncached.cached = 0;
  return usage_of(uncached, std::max<std::uint64_t>(output, slot.accepted));
}

Result<UsageBook> UsageBook::open(const std::string& path) {
  Result<Sqlite> database = Sqlite::open(path);
  if (!database) return database.error();
  if (const auto made = database->migrate("usage", kUsageMigrations); !made) return made.error();
  UsageBook book(std::move(*database));
  if (const auto prepared = book.prepare(); !prepared) return prepared.error();
  return book;
}

Result<void> UsageBook::prepare() {
  const auto make = [&](std::optional<Statement>& into, const std::string& sql) -> Result<void> {
    Result<Statement> statement = database_.prepare(sql);
    if (!statement) return statement.error();
    into = std::move(*statement);
    return {};
  };
  std::vector<std::pair<std::optional<Statement>*, std::string>> wanted{
      {&insert_batch_, "INSERT INTO usage_batches (settled_unix_s, sequences) VALUES (?1, ?2)"},
      {&insert_account_, "INSERT INTO usage_accounts (digest) VALUES (?1) ON CONFLICT DO NOTHING"},
      {&find_account_, "SELECT id FROM usage_accounts WHERE digest = ?1"},
      {&name_,
       "INSERT INTO usage_accounts (digest, tenant, key) VALUES (?1, ?2, ?3) "
       "ON CONFLICT (digest) DO UPDATE SET tenant = excluded.tenant, key = excluded.key "
       "WHERE tenant IS NOT excluded.tenant OR key IS NOT excluded.key"},
      {&prune_ids_,
       "DELETE FROM usage_batches WHERE id <= (SELECT max(id) FROM usage_batches) - ?1 "
       "AND settled_unix_s < ?2"},
      {&prune_seconds_, "DELETE FROM usage_seconds WHERE start < ?1"},
      {&prune_minutes_, "DELETE FROM usage_minutes WHERE start < ?1"}};
  for (std::size_t i = 0; i < kTables.size(); ++i) {
    wanted.emplace_back(
        &add_[i], std::string("INSERT INTO ") + kTables[i] +
                      " (start, account, model, requests, prompt, cached, output, cost, "
                      "kv_token_ms, device_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) "
                      "ON CONFLICT DO UPDATE SET "
                      "requests = requests + excluded.requests, prompt = prompt + excluded.prompt, "
                      "cached = cached + excluded.cached, output = output + excluded.output, "
                      "cost = cost + excluded.cost, "
                      "kv_token_ms = kv_token_ms + excluded.kv_token_ms, "
                      "device_ms = device_ms + excluded.device_ms");
  }
  for (const auto& [into, sql] : wanted)
    if (const Result<void> made = make(*into, sql); !made) return made.error();
  return {};
}

Result<void> UsageBook::write_batch(std::span<const UsageEntry> entries, std::int64_t now_unix_s) {
  sequences_.clear();
  for (const UsageEntry& entry : entries) {
    if (entry.sequence == 0) continue;
    std::array<std::uint8_t, sizeof entry.sequence> bytes{};
    std::memcpy(bytes.data(), &entry.sequence, sizeof entry.sequence);
    sequences_.insert(sequences_.end(), bytes.begin(), bytes.end());
  }
  if (sequences_.empty()) return {};
  insert_batch_->bind(1, now_unix_s).bind_blob(2, sequences_);
  const Result<void> done = insert_batch_->run();
  insert_batch_->reset();
  return done;
}

// Of the sequences of `entries` those that were added before.
Result<std::set<std::uint64_t>> UsageBook::known_of(std::span<const UsageEntry> entries) {
  std::set<std::uint64_t> wanted;
  for (const UsageEntry& entry : entries) wanted.insert(entry.sequence);
  Result<Statement> rows = database_.prepare("SELECT sequences FROM usage_batches");
  if (!rows) return rows.error();
  std::set<std::uint64_t> known;
  for (;;) {
    const Result<bool> row = rows->step();
    if (!row) return row.error();
    if (!*row) return known;
    const std::string bytes = rows->text(0);
    if (bytes.size() % sizeof(std::uint64_t) != 0)
      return make_error(Errc::bad_file, "usage_batches: a row is damaged");
    for (std::size_t at = 0; at < bytes.size(); at += sizeof(std::uint64_t)) {
      std::uint64_t sequence = 0;
      std::memcpy(&sequence, bytes.data() + at, sizeof sequence);
      if (wanted.contains(sequence)) known.insert(sequence);
    }
  }
}

Result<std::int64_t> UsageBook::account_row(const AccountDigest& account) {
  const auto known = account_rows_.find(account);
  if (known != account_rows_.end()) return known->second;
  insert_account_->bind_blob(1, account);
  const Result<void> inserted = insert_account_->run();
  insert_account_->reset();
  if (!inserted) return inserted.error();
  find_account_->bind_blob(1, account);
  const Result<bool> row = find_account_->step();
  const std::int64_t id = row && *row ? find_account_->integer(0) : 0;
  find_account_->reset();
  if (!row) return row.error();
  account_rows_.emplace(account, id);
  return id;
}

Result<void> UsageBook::prune(std::int64_t now_unix_s) {
  prune_ids_->bind(1, kBatchesKept).bind(2, now_unix_s - kIdsKeptS);
  const Result<void> ids = prune_ids_->run();
  prune_ids_->reset();
  if (!ids) return ids.error();
  prune_seconds_->bind(1, now_unix_s - kSecondsKept);
  const Result<void> seconds = prune_seconds_->run();
  prune_seconds_->reset();
  if (!seconds) return seconds;
  prune_minutes_->bind(1, now_unix_s - kMinutesKeptS);
  const Result<void> minutes = prune_minutes_->run();
  prune_minutes_->reset();
  return minutes;
}

// What a batch adds to one row. Counted in memory first: a statement costs more than an entry.
Result<void> UsageBook::add_row(std::size_t table, const RowKey& key, const UsageEntry& sum) {
  Statement& add = *add_[table];
  add.bind(1, key.start)
      .bind(2, key.account)
      .bind(3, signed_of(key.model))
      .bind(4, signed_of(sum.requests))
      .bind(5, signed_of(sum.prompt))
      .bind(6, signed_of(sum.cached))
      .bind(7, signed_of(sum.output))
      .bind(8, signed_of(sum.cost))
      .bind(9, signed_of(sum.kv_token_ms))
      .bind(10, signed_of(sum.device_ms));
  const Result<void> added = add.run();
  add.reset();
  return added;
}

Result<void> UsageBook::write(std::span<const UsageEntry> entries) {
  std::map<RowKey, UsageEntry> seconds;
  for (const UsageEntry& entry : entries) {
    const Result<std::int64_t> account = account_row(entry.account);
    if (!account) return account.error();
    // Whole seconds of the admission: rounded as each table wants it below.
    const std::int64_t ms = std::clamp<std::int64_t>(entry.admitted_unix_ms, 0, kUnixMsMax);
    add_to(seconds[{ms / 1000, ms % 1000 == 0 ? 0 : 1, *account, entry.model}], entry);
  }
  for (std::size_t table = 0; table < kTables.size(); ++table) {
    std::map<RowKey, UsageEntry> rows;
    for (const auto& [key, sum] : seconds) {
      const std::int64_t start = row_start(table, key.start * 1000 + key.has_fraction);
      add_to(rows[{start, 0, key.account, key.model}], sum);
    }
    for (const auto& [key, sum] : rows)
      if (const Result<void> added = add_row(table, key, sum); !added) return added.error();
  }
  return {};
}

Result<void> UsageBook::add_new(std::span<const UsageEntry> entries, std::int64_t now_unix_s) {
  Result<Transaction> transaction = Transaction::begin(database_);
  if (!transaction) return transaction.error();
  Result<void> done = write(entries);
  if (done) done = write_batch(entries, now_unix_s);
  if (done) done = prune(now_unix_s);
  if (done) done = transaction->commit();
  if (!done) account_rows_.clear();  // those that it made are not there
  return done;
}

Result<std::uint64_t> UsageBook::add(std::span<const UsageEntry> entries, std::int64_t now_unix_s) {
  Result<Transaction> transaction = Transaction::begin(database_);
  if (!transaction) return transaction.error();
  Result<std::set<std::uint64_t>> known = known_of(entries);
  if (!known) return known.error();
  std::vector<UsageEntry> fresh;
  for (const UsageEntry& entry : entries)
    if (entry.sequence == 0 || known->insert(entry.sequence).second) fresh.push_back(entry);
  Result<void> done = write(fresh);
  if (done) done = write_batch(entries, now_unix_s);
  if (done) done = transaction->commit();
  if (done) return fresh.size();
  account_rows_.clear();
  return done.error();
}

Result<void> UsageBook::name_accounts(std::span<const AccountName> names) {
  if (names.empty()) return {};
  Result<Transaction> transaction = Transaction::begin(database_);
  if (!transaction) return transaction.error();
  for (const AccountName& name : names) {
    name_->bind_blob(1, name.account).bind(2, name.tenant).bind(3, name.key);
    const Result<void> named = name_->run();
    name_->reset();
    if (!named) return named.error();
  }
  return transaction->commit();
}

Result<void> UsageBook::name_models(std::span<const std::string> models) {
  Result<Statement> name =
      database_.prepare("INSERT INTO usage_models VALUES (?1, ?2) ON CONFLICT DO NOTHING");
  if (!name) return name.error();
  for (const std::string& model : models) {
    name->bind(1, signed_of(model_digest(model))).bind(2, model);
    const Result<void> named = name->run();
    name->reset();
    if (!named) return named;
  }
  return {};
}

Result<void> UsageBook::forget_ids() {
  return database_.execute("DELETE FROM usage_batches");
}

Result<std::vector<UsageSum>> UsageBook::sums(UsagePeriod period, std::int64_t from_unix_s) {
  const bool is_month = period == UsagePeriod::month;
  const std::string start = is_month ? kMonthStart : "start";
  Result<Statement> select =
      database_.prepare("SELECT digest, tenant, model, " + start +
                        ", sum(requests), sum(prompt), sum(cached), sum(output), sum(cost), "
                        "sum(kv_token_ms), sum(device_ms) FROM " +
                        kTables[is_month ? 2 : static_cast<std::size_t>(period)] +
                        " JOIN usage_accounts ON id = account WHERE start >= ?1 AND " + start +
                        " >= ?1 GROUP BY 4, account, model ORDER BY 4, account, model");
  if (!select) return select.error();
  select->bind(1, from_unix_s);
  std::vector<UsageSum> sums;
  for (;;) {
    const Result<bool> row = select->step();
    if (!row) return row.error();
    if (!*row) return sums;
    UsageSum& sum = sums.emplace_back();
    const std::string digest = select->text(0);
    if (digest.size() != sum.account.size())
      return make_error(Errc::bad_file, "usage_accounts: a digest has another size");
    std::copy(digest.begin(), digest.end(), sum.account.begin());
    sum.tenant = select->text(1);
    sum.model = static_cast<std::uint64_t>(select->integer(2));
    sum.start_unix_s = select->integer(3);
    const std::array<std::uint64_t*, 7> counts{&sum.requests, &sum.prompt, &sum.cached,
                                               &sum.output,   &sum.cost,   &sum.kv_token_ms,
                                               &sum.device_ms};
    for (int i = 0; i < 7; ++i) {
      const std::int64_t value = select->integer(4 + i);
      if (value < 0) return make_error(Errc::bad_file, "usage: a count is negative");
      *counts[static_cast<std::size_t>(i)] = static_cast<std::uint64_t>(value);
    }
  }
}

}  // namespace sluice::gw
