// The schema and its statements. Fields that only this program reads are kept as the JSON bodies
// that AdminParser reads, so that a row is checked like a request.
#include "gateway/admin/directory_store.h"

#include <algorithm>
#include <array>

#include "gateway/admin/admin_json.h"

namespace sluice::gw {
namespace {

constexpr std::array<const char*, 3> kMigrations{
    "CREATE TABLE tenants (id TEXT PRIMARY KEY, version INTEGER NOT NULL, created_at INTEGER NOT "
    "NULL, fields TEXT NOT NULL, limits TEXT NOT NULL) STRICT;"
    "CREATE TABLE keys (public_id TEXT PRIMARY KEY, tenant TEXT NOT NULL REFERENCES tenants (id) "
    "ON "
    "DELETE CASCADE, digest BLOB NOT NULL, created_at INTEGER NOT NULL, revoked_at INTEGER NOT "
    "NULL, fields TEXT NOT NULL) STRICT;"
    "CREATE INDEX keys_by_tenant ON keys (tenant);"
    "CREATE TABLE admin_keys (public_id TEXT PRIMARY KEY, digest BLOB NOT NULL, created_at INTEGER "
    "NOT NULL) STRICT;"
    "CREATE TABLE audit (id INTEGER PRIMARY KEY AUTOINCREMENT, unix_s INTEGER NOT NULL, actor TEXT "
    "NOT NULL, action TEXT NOT NULL, target TEXT NOT NULL, detail TEXT NOT NULL) STRICT;",
    // Versions had been counted by tenant, one for each row of the audit at most.
    "CREATE TABLE revision (id INTEGER PRIMARY KEY CHECK (id = 1), value INTEGER NOT NULL) STRICT;"
    "INSERT INTO revision SELECT 1, COALESCE(MAX(id), 0) FROM audit;"
    "ALTER TABLE keys ADD COLUMN version INTEGER NOT NULL DEFAULT 1;"
    "CREATE TABLE idempotency (id TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, unix_s INTEGER NOT "
    "NULL, status INTEGER NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL) STRICT;",
    "CREATE TABLE fleet_orders (id TEXT PRIMARY KEY, action TEXT NOT NULL, model TEXT NOT NULL, "
    "unix_s INTEGER NOT NULL, actor TEXT NOT NULL) STRICT;"};

constexpr std::string_view kOpened = "open", kDrained = "drain";

bool read_digest(const std::string& bytes, KeyDigest& digest) {
  if (bytes.size() != digest.size()) return false;
  std::copy(bytes.begin(), bytes.end(), digest.begin());
  return true;
}

Error bad_row(const char* table, const std::string& id) {
  return make_error(Errc::bad_file,
                    std::string("the row '") + id + "' of the table " + table + " is damaged");
}

}  // namespace

Result<DirectoryStore> DirectoryStore::open(const std::string& path) {
  Result<Sqlite> database = Sqlite::open(path);
  if (!database) return database.error();
  if (const Result<void> done = database->migrate("directory", kMigrations); !done)
    return done.error();
  return DirectoryStore(std::move(*database));
}

Result<Directory> DirectoryStore::load() {
  Directory directory;
  if (const Result<void> done = load_tenants(directory); !done) return done.error();
  if (const Result<void> done = load_keys(directory); !done) return done.error();
  if (const Result<void> done = load_answers(directory); !done) return done.error();
  if (const Result<void> done = load_orders(directory); !done) return done.error();
  Result<Statement> row = database_.prepare("SELECT value FROM revision");
  if (!row) return row.error();
  const Result<bool> found = row->step();
  if (!found) return found.error();
  if (!*found) return bad_row("revision", "1");
  directory.set_revision(row->integer(0));
  return directory;
}

Result<void> DirectoryStore::load_tenants(Directory& directory) {
  AdminParser parser(0);  // these bodies were checked before
  Result<Statement> rows =
      database_.prepare("SELECT id, version, created_at, fields, limits FROM tenants");
  if (!rows) return rows.error();
  for (;;) {
    const Result<bool> row = rows->step();
    if (!row) return row.error();
    if (!*row) return {};
    ManagedTenant tenant;
    const std::string id = rows->text(0);
    tenant.version = rows->integer(1);
    tenant.created_at = rows->integer(2);
    std::string fields = rows->text(3);
    std::string limits = rows->text(4);
    if (!parser.read_tenant(fields, tenant.fields) || tenant.fields.id != id ||
        !parser.read_quota(limits, tenant.limits))
      return bad_row("tenants", id);
    directory.put(std::move(tenant));
  }
}

Result<void> DirectoryStore::load_answers(Directory& directory) {
  Result<Statement> rows =
      database_.prepare("SELECT id, fingerprint, unix_s, status, version, body FROM idempotency");
  if (!rows) return rows.error();
  for (;;) {
    const Result<bool> row = rows->step();
    if (!row) return row.error();
    if (!*row) return {};
    directory.put(IdempotentAnswer{rows->text(0), rows->text(1), rows->integer(2), rows->integer(3),
                                   rows->integer(4), rows->text(5)});
  }
}

Result<void> DirectoryStore::load_orders(Directory& directory) {
  Result<Statement> rows =
      database_.prepare("SELECT id, action, model, unix_s, actor FROM fleet_orders");
  if (!rows) return rows.error();
  for (;;) {
    const Result<bool> row = rows->step();
    if (!row) return row.error();
    if (!*row) return {};
    const std::string id = rows->text(0), action = rows->text(1);
    if (action != kOpened && action != kDrained) return bad_row("fleet_orders", id);
    directory.put(
        id, FleetOrder{action == kOpened ? FleetAction::open_breaker : FleetAction::drain_worker,
                       rows->text(2), rows->integer(3), rows->text(4)});
  }
}

Result<void> DirectoryStore::load_keys(Directory& directory) {
  AdminParser parser(0);
  Result<Statement> rows = database_.prepare(
      "SELECT public_id, tenant, digest, created_at, revoked_at, fields, version FROM keys");
  if (!rows) return rows.error();
  for (;;) {
    const Result<bool> row = rows->step();
    if (!row) return row.error();
    if (!*row) return {};
    ManagedKey key;
    key.public_id = rows->text(0);
    key.tenant = rows->text(1);
    key.created_at = rows->integer(3);
    key.revoked_at = rows->integer(4);
    key.version = rows->integer(6);
    std::string fields = rows->text(5);
    if (!read_digest(rows->text(2), key.digest) || !directory.tenants().contains(key.tenant) ||
        !parser.read_key(fields, key.fields))
      return bad_row("keys", key.public_id);
    directory.put(std::move(key));
  }
}

Result<std::vector<AdminKey>> DirectoryStore::load_admin_keys() {
  Result<Statement> rows = database_.prepare("SELECT public_id, digest FROM admin_keys");
  if (!rows) return rows.error();
  std::vector<AdminKey> keys;
  for (;;) {
    const Result<bool> row = rows->step();
    if (!row) return row.error();
    if (!*row) return keys;
    AdminKey& key = keys.emplace_back();
    key.public_id = rows->text(0);
    if (!read_digest(rows->text(1), key.digest)) return bad_row("admin_keys", key.public_id);
  }
}

Result<void> DirectoryStore::add_admin_key(const AdminKey& key, std::int64_t unix_s) {
  Result<Statement> insert = database_.prepare("INSERT INTO admin_keys VALUES (?1, ?2, ?3)");
  if (!insert) return insert.error();
  insert->bind(1, key.public_id).bind_blob(2, key.digest).bind(3, unix_s);
  return insert->run();
}

Result<bool> DirectoryStore::delete_admin_key(const std::string& public_id) {
  Result<Statement> erase =
      database_.prepare("DELETE FROM admin_keys WHERE public_id = ?1 RETURNING public_id");
  if (!erase) return erase.error();
  return erase->bind(1, public_id).step();
}

Result<void> DirectoryStore::apply(const DirectoryChange& change) {
  Result<Transaction> transaction = Transaction::begin(database_);
  if (!transaction) return transaction.error();
  if (change.tenant)
    if (const Result<void> done = put(*change.tenant); !done) return done;
  for (const ManagedKey& key : change.keys)
    if (const Result<void> done = put(key); !done) return done;
  for (const std::string& id : change.erased_keys)
    if (const Result<void> done = erase("DELETE FROM keys WHERE public_id = ?1", id); !done)
      return done;
  if (change.answer)
    if (const Result<void> done = put(*change.answer); !done) return done;
  if (!change.ordered.empty()) {
    const Result<void> done = change.order
                                  ? put(change.ordered, *change.order)
                                  : erase("DELETE FROM fleet_orders WHERE id = ?1", change.ordered);
    if (!done) return done;
  }
  if (const Result<void> done = put_revision(change.revision); !done) return done;
  if (!change.erased_tenant.empty())
    if (const Result<void> done = erase("DELETE FROM tenants WHERE id = ?1", change.erased_tenant);
        !done)
      return done;
  if (const Result<void> done = put(change.audit); !done) return done;
  return transaction->commit();
}

Result<void> DirectoryStore::put(const ManagedTenant& tenant) {
  std::string fields, limits;
  append_tenant_body(fields, tenant.fields);
  append_limits_body(limits, tenant.limits);
  Result<Statement> write = database_.prepare(
      "INSERT INTO tenants VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (id) DO UPDATE SET version = "
      "excluded.version, fields = excluded.fields, limits = excluded.limits");
  if (!write) return write.error();
  write->bind(1, tenant.fields.id).bind(2, tenant.version).bind(3, tenant.created_at);
  write->bind(4, fields).bind(5, limits);
  return write->run();
}

Result<void> DirectoryStore::put(const ManagedKey& key) {
  std::string fields;
  append_key_body(fields, key.fields);
  Result<Statement> write = database_.prepare(
      "INSERT INTO keys (public_id, tenant, digest, created_at, revoked_at, fields, version) "
      "VALUES "
      "(?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (public_id) DO UPDATE SET revoked_at = "
      "excluded.revoked_at, fields = excluded.fields, version = excluded.version");
  if (!write) return write.error();
  write->bind(1, key.public_id).bind(2, key.tenant).bind_blob(3, key.digest);
  write->bind(4, key.created_at).bind(5, key.revoked_at).bind(6, fields).bind(7, key.version);
  return write->run();
}

Result<void> DirectoryStore::put(const AuditRow& row) {
  Result<Statement> write = database_.prepare(
      "INSERT INTO audit (unix_s, actor, action, target, detail) VALUES (?1, ?2, ?3, ?4, ?5)");
  if (!write) return write.error();
  write->bind(1, row.unix_s).bind(2, row.actor).bind(3, row.action).bind(4, row.target);
  write->bind(5, row.detail);
  if (const Result<void> done = write->run(); !done) return done;
  Result<Statement> cut = database_.prepare("DELETE FROM audit WHERE id <= ?1");
  if (!cut) return cut.error();
  return cut->bind(1, database_.last_row_id() - kAuditRowsMax).run();
}

Result<void> DirectoryStore::put(const IdempotentAnswer& answer) {
  Result<Statement> old = database_.prepare(
      "DELETE FROM idempotency WHERE unix_s <= ?1 OR id IN (SELECT id FROM idempotency ORDER BY "
      "unix_s DESC, id DESC LIMIT -1 OFFSET ?2)");
  if (!old) return old.error();
  old->bind(1, answer.unix_s - kIdempotentSeconds);
  old->bind(2, static_cast<std::int64_t>(kIdempotentAnswersMax) - 1);
  if (const Result<void> done = old->run(); !done) return done;
  Result<Statement> write =
      database_.prepare("INSERT OR REPLACE INTO idempotency VALUES (?1, ?2, ?3, ?4, ?5, ?6)");
  if (!write) return write.error();
  write->bind(1, answer.id).bind(2, answer.fingerprint).bind(3, answer.unix_s);
  write->bind(4, answer.status).bind(5, answer.version).bind(6, answer.body);
  return write->run();
}

Result<void> DirectoryStore::put(const std::string& id, const FleetOrder& order) {
  Result<Statement> write =
      database_.prepare("INSERT OR REPLACE INTO fleet_orders VALUES (?1, ?2, ?3, ?4, ?5)");
  if (!write) return write.error();
  write->bind(1, id).bind(2, order.action == FleetAction::open_breaker ? kOpened : kDrained);
  write->bind(3, order.model).bind(4, order.unix_s).bind(5, order.actor);
  return write->run();
}

Result<void> DirectoryStore::put_revision(std::int64_t revision) {
  Result<Statement> write = database_.prepare("UPDATE revision SET value = ?1 WHERE value < ?1");
  if (!write) return write.error();
  return write->bind(1, revision).run();
}

Result<void> DirectoryStore::add_audit(std::span<const AuditRow> rows) {
  Result<Transaction> transaction = Transaction::begin(database_);
  if (!transaction) return transaction.error();
  for (const AuditRow& row : rows)
    if (const Result<void> done = put(row); !done) return done;
  return transaction->commit();
}

Result<void> DirectoryStore::erase(const char* sql, const std::string& id) {
  Result<Statement> write = database_.prepare(sql);
  if (!write) return write.error();
  return write->bind(1, id).run();
}

Result<std::vector<std::pair<std::int64_t, AuditRow>>> DirectoryStore::audit(
    std::int64_t before, std::int64_t count_max) {
  Result<Statement> rows = database_.prepare(
      "SELECT id, unix_s, actor, action, target, detail FROM audit WHERE ?1 = 0 OR id < ?1 ORDER "
      "BY "
      "id DESC LIMIT ?2");
  if (!rows) return rows.error();
  rows->bind(1, before).bind(2, count_max);
  std::vector<std::pair<std::int64_t, AuditRow>> found;
  for (;;) {
    const Result<bool> row = rows->step();
    if (!row) return row.error();
    if (!*row) return found;
    found.emplace_back(rows->integer(0), AuditRow{rows->integer(1), rows->text(2), rows->text(3),
                                                  rows->text(4), rows->text(5)});
  }
}

}  // namespace sluice::gw
