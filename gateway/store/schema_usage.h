// The tables of UsageBook, as a list of migrations that only grows.
#pragma once

#include <array>

namespace sluice::gw {

// One table per period, each with the same columns; months are sums of days. Counters are below
// 2^62 (kAmountMax). `sequences`: the ids of one batch, 8 bytes each.
inline constexpr std::array kUsageMigrations{
    "CREATE TABLE usage_accounts (id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE,"
    " tenant TEXT NOT NULL DEFAULT '', key TEXT NOT NULL DEFAULT '') STRICT;"
    "CREATE TABLE usage_models (digest INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT;"
    "CREATE TABLE usage_batches (id INTEGER PRIMARY KEY, settled_unix_s INTEGER NOT NULL,"
    " sequences BLOB NOT NULL) STRICT;"
    "CREATE TABLE usage_seconds (start INTEGER, account INTEGER, model INTEGER,"
    " requests INTEGER NOT NULL, prompt INTEGER NOT NULL, cached INTEGER NOT NULL,"
    " output INTEGER NOT NULL, cost INTEGER NOT NULL,"
    " PRIMARY KEY (start, account, model)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE usage_minutes (start INTEGER, account INTEGER, model INTEGER,"
    " requests INTEGER NOT NULL, prompt INTEGER NOT NULL, cached INTEGER NOT NULL,"
    " output INTEGER NOT NULL, cost INTEGER NOT NULL,"
    " PRIMARY KEY (start, account, model)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE usage_days (start INTEGER, account INTEGER, model INTEGER,"
    " requests INTEGER NOT NULL, prompt INTEGER NOT NULL, cached INTEGER NOT NULL,"
    " output INTEGER NOT NULL, cost INTEGER NOT NULL,"
    " PRIMARY KEY (start, account, model)) STRICT, WITHOUT ROWID;",
    "ALTER TABLE usage_seconds ADD COLUMN kv_token_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE usage_seconds ADD COLUMN device_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE usage_minutes ADD COLUMN kv_token_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE usage_minutes ADD COLUMN device_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE usage_days ADD COLUMN kv_token_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE usage_days ADD COLUMN device_ms INTEGER NOT NULL DEFAULT 0;"};

}  // namespace sluice::gw
