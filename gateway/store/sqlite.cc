// The calls into SQLite and the translation of its errors.
#include "gateway/store/sqlite.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "shared/unique_fd.h"

namespace sluice::gw {
namespace {

constexpr int kBusyTimeoutMs = 5'000;

Error error_of(sqlite3* connection, std::string_view what) {
  const int code = connection == nullptr ? SQLITE_NOMEM : sqlite3_errcode(connection);
  return make_error(code == SQLITE_FULL ? Errc::quota_store_unavailable : Errc::io_error,
                    std::string(what) + ": " +
                        (connection == nullptr ? "no memory" : sqlite3_errmsg(connection)));
}

}  // namespace

void Statement::Finalize::operator()(sqlite3_stmt* statement) const {
  sqlite3_finalize(statement);
}

Statement& Statement::bind(int index, std::int64_t value) {
  has_bind_error_ |= sqlite3_bind_int64(statement_.get(), index, value) != SQLITE_OK;
  return *this;
}

Statement& Statement::bind(int index, std::string_view text) {
  has_bind_error_ |= sqlite3_bind_text64(statement_.get(), index, text.data(), text.size(),
                                         SQLITE_TRANSIENT, SQLITE_UTF8) != SQLITE_OK;
  return *this;
}

Statement& Statement::bind_blob(int index, std::span<const std::uint8_t> bytes) {
  has_bind_error_ |= sqlite3_bind_blob64(statement_.get(), index, bytes.data(), bytes.size(),
                                         SQLITE_TRANSIENT) != SQLITE_OK;
  return *this;
}

Result<bool> Statement::step() {
  sqlite3* const connection = sqlite3_db_handle(statement_.get());
  if (has_bind_error_) return error_of(connection, "cannot bind a value");
  const int code = sqlite3_step(statement_.get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return error_of(connection, "cannot run a statement");
}

Result<void> Statement::run() {
  for (;;) {
    const Result<bool> row = step();
    if (!row) return row.error();
    if (!*row) return {};
  }
}

void Statement::reset() {
  sqlite3_reset(statement_.get());  // repeats the error of the last step, which was told
  sqlite3_clear_bindings(statement_.get());
  has_bind_error_ = false;
}

std::int64_t Statement::integer(int column) const {
  return sqlite3_column_int64(statement_.get(), column);
}

std::string Statement::text(int column) const {
  const void* const bytes = sqlite3_column_blob(statement_.get(), column);
  const int size = sqlite3_column_bytes(statement_.get(), column);
  return bytes == nullptr
             ? std::string()
             : std::string(static_cast<const char*>(bytes), static_cast<std::size_t>(size));
}

void Sqlite::Close::operator()(sqlite3* connection) const {
  sqlite3_close_v2(connection);
}

Result<Sqlite> Sqlite::open(const std::string& path) {
  // SQLite would make the file with the process's mask; the log files copy its mode. One that
  // exists is not opened: to close it would drop the POSIX locks of every connection of this
  // process.
  if (!UniqueFd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)) &&
      errno != EEXIST)
    return make_error(Errc::io_error, "cannot open " + path + ": " + std::strerror(errno));
  sqlite3* raw = nullptr;
  const int code =
      sqlite3_open_v2(path.c_str(), &raw,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW, nullptr);
  Sqlite database;
  database.connection_.reset(raw);
  if (code != SQLITE_OK) return error_of(raw, "cannot open " + path);
  sqlite3_extended_result_codes(raw, 0);
  sqlite3_busy_timeout(raw, kBusyTimeoutMs);
  Result<Statement> mode = database.prepare("PRAGMA journal_mode=WAL");
  if (!mode) return mode.error();
  const Result<bool> row = mode->step();
  if (!row) return row.error();
  if (!*row || mode->text(0) != "wal")
    return make_error(Errc::io_error, path + ": this file system has no write-ahead log");
  mode->reset();
  if (const Result<void> set =
          database.execute("PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; "
                           "PRAGMA trusted_schema=OFF; PRAGMA secure_delete=ON");
      !set)
    return set.error();
  return database;
}

Result<Statement> Sqlite::prepare(std::string_view sql) {
  sqlite3_stmt* raw = nullptr;
  const int code = sqlite3_prepare_v2(connection_.get(), sql.data(), static_cast<int>(sql.size()),
                                      &raw, nullptr);
  Statement statement;
  statement.statement_.reset(raw);
  if (code != SQLITE_OK) return error_of(connection_.get(), "cannot prepare a statement");
  return statement;
}

Result<void> Sqlite::execute(const char* sql) {
  if (sqlite3_exec(connection_.get(), sql, nullptr, nullptr, nullptr) != SQLITE_OK)
    return error_of(connection_.get(), "cannot run a statement");
  return {};
}

Result<void> Sqlite::migrate(std::string_view owner, std::span<const char* const> migrations) {
  Result<Transaction> transaction = Transaction::begin(*this);
  if (!transaction) return transaction.error();
  if (const Result<void> made = execute("CREATE TABLE IF NOT EXISTS schema_versions ("
                                        "owner TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT");
      !made)
    return made.error();
  Result<Statement> read = prepare("SELECT version FROM schema_versions WHERE owner = ?1");
  if (!read) return read.error();
  const Result<bool> row = read->bind(1, owner).step();
  if (!row) return row.error();
  const std::int64_t version = *row ? read->integer(0) : 0;
  read->reset();
  if (version < 0 || static_cast<std::size_t>(version) > migrations.size())
    return make_error(Errc::bad_file, "the tables '" + std::string(owner) +
                                          "' were written by a later version of this program");
  // Nothing is written then: a full disk need not keep a gateway from starting.
  if (static_cast<std::size_t>(version) == migrations.size()) return {};
  for (const char* sql : migrations.subspan(static_cast<std::size_t>(version)))
    if (const Result<void> done = execute(sql); !done) return done.error();
  Result<Statement> write = prepare(
      "INSERT INTO schema_versions VALUES (?1, ?2) "
      "ON CONFLICT (owner) DO UPDATE SET version = excluded.version");
  if (!write) return write.error();
  write->bind(1, owner).bind(2, static_cast<std::int64_t>(migrations.size()));
  if (const Result<void> done = write->run(); !done) return done.error();
  return transaction->commit();
}

std::int64_t Sqlite::last_row_id() const {
  return sqlite3_last_insert_rowid(connection_.get());
}

std::int64_t Sqlite::num_changed() const {
  return sqlite3_changes64(connection_.get());
}

Result<Transaction> Transaction::begin(Sqlite& database) {
  if (const Result<void> begun = database.execute("BEGIN IMMEDIATE"); !begun) return begun.error();
  return Transaction(database);
}

Result<Transaction> Transaction::begin_reading(Sqlite& database) {
  if (const Result<void> begun = database.execute("BEGIN"); !begun) return begun.error();
  return Transaction(database);
}

Transaction::~Transaction() {
  // A failed statement may have ended the transaction already: then there is nothing to undo.
  if (database_ != nullptr) (void)database_->execute("ROLLBACK").has_value();
}

Result<void> Transaction::commit() {
  if (const Result<void> done = database_->execute("COMMIT"); !done) return done.error();
  database_ = nullptr;
  return {};
}

}  // namespace sluice::gw
