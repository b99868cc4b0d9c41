// Sqlite: one connection to a SQLite file as values and Results. Write-ahead log, full
// synchronization: what commit() returned for survives a power loss. Errors carry SQLite's message,
// never the values of a statement; a full disk is quota_store_unavailable, so that callers can say
// so, all else io_error.
//
// Tables belong to owners, each with a list of migrations that only grows; the table
// `schema_versions` says how many of an owner's list have run. One thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "shared/result.h"

struct sqlite3;
struct sqlite3_stmt;

namespace sluice::gw {

class Statement {
 public:
  // Parameters count from 1, columns from 0. Bound text is copied.
  Statement& bind(int index, std::int64_t value);
  Statement& bind(int index, std::string_view text);
  Statement& bind_blob(int index, std::span<const std::uint8_t> bytes);

  Result<bool> step();  // true: a row is there
  Result<void> run();   // to the end; rows are dropped
  void reset();         // for the next bind; keeps nothing

  std::int64_t integer(int column) const;
  std::string text(int column) const;  // also the bytes of a blob

 private:
  friend class Sqlite;
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const;
  };
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
  bool has_bind_error_ = false;
};

class Sqlite {
 public:
  // Makes the file (0600) where missing.
  static Result<Sqlite> open(const std::string& path);

  Result<Statement> prepare(std::string_view sql);
  Result<void> execute(const char* sql);  // one or more statements without parameters
  // Runs what is missing of `migrations` for `owner`, in one transaction. Errors: bad_file where
  // the file was written by a later version.
  Result<void> migrate(std::string_view owner, std::span<const char* const> migrations);
  std::int64_t last_row_id() const;
  std::int64_t num_changed() const;  // rows, by the last statement that wrote

 private:
  struct Close {
    void operator()(sqlite3* connection) const;
  };
  std::unique_ptr<sqlite3, Close> connection_;
};

// Rolls back unless commit() succeeded.
class Transaction {
 public:
  static Result<Transaction> begin(Sqlite& database);
  // Sees one state of the database for as long as it lives; writes nothing.
  static Result<Transaction> begin_reading(Sqlite& database);
  Transaction(Transaction&& other) noexcept : database_(std::exchange(other.database_, nullptr)) {}
  ~Transaction();
  Result<void> commit();

 private:
  explicit Transaction(Sqlite& database) : database_(&database) {}
  Sqlite* database_;
};

}  // namespace sluice::gw
