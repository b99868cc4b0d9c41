// The SQLite wrapper: values go through unchanged, transactions are whole, migrations run once.
// Method: a file in a fresh folder, opened again to see what was kept.
#include "gateway/store/sqlite.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <string>

namespace sluice::gw {
namespace {

class SqliteFile : public ::testing::Test {
 protected:
  SqliteFile() {
    std::string name = std::filesystem::temp_directory_path() / "sluice-sqlite-XXXXXX";
    folder_ = ::mkdtemp(name.data());
    path_ = folder_ + "/store.db";
  }
  ~SqliteFile() override { std::filesystem::remove_all(folder_); }

  std::int64_t count(Sqlite& database) {
    Result<Statement> statement = database.prepare("SELECT count(*) FROM t");
    EXPECT_TRUE(*statement->step());
    return statement->integer(0);
  }

  std::string folder_, path_;
};

TEST_F(SqliteFile, KeepsWhatWasBound) {
  const std::array<std::uint8_t, 3> bytes{0, 255, 7};
  const std::string text("a'; DROP TABLE t; --\0b", 22);
  {
    Result<Sqlite> database = Sqlite::open(path_);
    ASSERT_TRUE(database);
    ASSERT_TRUE(database->execute("CREATE TABLE t (a INTEGER, b TEXT, c BLOB) STRICT"));
    Result<Statement> insert = database->prepare("INSERT INTO t VALUES (?1, ?2, ?3)");
    ASSERT_TRUE(insert);
    insert->bind(1, std::int64_t{-5}).bind(2, text).bind_blob(3, bytes);
    ASSERT_TRUE(insert->run());
  }
  Result<Sqlite> database = Sqlite::open(path_);
  ASSERT_TRUE(database);
  Result<Statement> select = database->prepare("SELECT a, b, c FROM t");
  ASSERT_TRUE(select);
  ASSERT_TRUE(*select->step());
  EXPECT_EQ(select->integer(0), -5);
  EXPECT_EQ(select->text(1), text);
  EXPECT_EQ(select->text(2), std::string(bytes.begin(), bytes.end()));
  EXPECT_FALSE(*select->step());
  struct stat facts {};
  ASSERT_EQ(::stat(path_.c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 0777, 0600u);
}

// POSIX locks end when any descriptor of the file is closed. Without them another process that
// closes the file last, as it believes, takes the write-ahead log away, and what is read here stays
// old.
TEST_F(SqliteFile, HoldsItsLocksWhileAnotherConnectionIsOpened) {
  Result<Sqlite> database = Sqlite::open(path_);
  ASSERT_TRUE(database);
  ASSERT_TRUE(database->execute("CREATE TABLE t (a INTEGER) STRICT"));
  const Result<Sqlite> second = Sqlite::open(path_);
  ASSERT_TRUE(second);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {  // another process: may it lock what readers share?
    struct flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = 0x40000002;  // SHARED_FIRST, SHARED_SIZE of SQLite's file format
    lock.l_len = 510;
    const int file = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
    const bool asked = file >= 0 && ::fcntl(file, F_GETLK, &lock) == 0;
    ::_exit(asked ? (lock.l_type == F_UNLCK ? 1 : 0) : 2);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0) << "1: nothing is locked";
}

TEST_F(SqliteFile, ATransactionThatIsNotCommittedLeavesNothing) {
  Result<Sqlite> database = Sqlite::open(path_);
  ASSERT_TRUE(database);
  ASSERT_TRUE(database->execute("CREATE TABLE t (a INTEGER UNIQUE) STRICT"));
  {
    Result<Transaction> transaction = Transaction::begin(*database);
    ASSERT_TRUE(transaction);
    ASSERT_TRUE(database->execute("INSERT INTO t VALUES (1)"));
    EXPECT_FALSE(database->execute("INSERT INTO t VALUES (1)"));
  }
  EXPECT_EQ(count(*database), 0);
  Result<Transaction> transaction = Transaction::begin(*database);
  ASSERT_TRUE(database->execute("INSERT INTO t VALUES (1)"));
  ASSERT_TRUE(transaction->commit());
  EXPECT_EQ(count(*database), 1);
}

TEST_F(SqliteFile, MigrationsRunOnceAndOnlyForwards) {
  constexpr std::array<const char*, 2> kSteps{"CREATE TABLE t (a INTEGER) STRICT",
                                              "INSERT INTO t VALUES (1)"};
  Result<Sqlite> database = Sqlite::open(path_);
  ASSERT_TRUE(database);
  ASSERT_TRUE(database->migrate("mine", std::span(kSteps).first(1)));
  EXPECT_EQ(count(*database), 0);
  ASSERT_TRUE(database->migrate("mine", kSteps));
  ASSERT_TRUE(database->migrate("mine", kSteps));
  EXPECT_EQ(count(*database), 1);
  EXPECT_EQ(database->migrate("mine", std::span(kSteps).first(1)).error().code, Errc::bad_file);
  constexpr std::array<const char*, 2> kBroken{"INSERT INTO t VALUES (2)", "no SQL"};
  EXPECT_FALSE(database->migrate("other", kBroken));
  EXPECT_EQ(count(*database), 1);
}

TEST_F(SqliteFile, AFullStoreHasItsOwnCode) {
  Result<Sqlite> database = Sqlite::open(path_);
  ASSERT_TRUE(database);
  ASSERT_TRUE(database->execute("CREATE TABLE t (a BLOB) STRICT; PRAGMA max_page_count=3"));
  const Result<void> filled = database->execute("INSERT INTO t VALUES (zeroblob(100000))");
  ASSERT_FALSE(filled);
  EXPECT_EQ(filled.error().code, Errc::quota_store_unavailable);
  EXPECT_EQ(count(*database), 0);
  EXPECT_TRUE(database->execute("PRAGMA max_page_count=1000"));
  EXPECT_TRUE(database->execute("INSERT INTO t VALUES (zeroblob(100000))"));
}

TEST_F(SqliteFile, WhatIsNoDatabaseIsRefused) {
  EXPECT_FALSE(Sqlite::open(folder_ + "/missing/store.db"));
  FILE* const file = std::fopen(path_.c_str(), "w");
  for (int i = 0; i < 1000; ++i) std::fputs("garbage ", file);
  std::fclose(file);
  EXPECT_FALSE(Sqlite::open(path_));
}

}  // namespace
}  // namespace sluice::gw
