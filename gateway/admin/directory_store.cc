// The schema and its statements. Fields that only this program reads are kept as the JSON bodies
// that AdminParser reads, so that a row is checked like a request.
#include "gateway/admin/directory_store.h"

#include <algorithm>
#include <array>

#include "gateway/admin/admin_json.h"

namespace sluice::gw {
namespace {

constexpr std::array<const char*, 1> kMigrations{
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
    "NOT NULL, action TEXT NOT NULL, target TEXT NOT NULL, detail TEXT NOT NULL) STRICT;"};

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
    directory.tenants.emplace(id, std::move(tenant));
  }
}

Result<void> DirectoryStore::load_keys(Directory& directory) {
  AdminParser parser(0);
  Result<Statement> rows = database_.prepare(
      "SELECT public_id, tenant, digest, created_at, revoked_at, fields FROM keys");
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
    std::string fields = rows->text(5);
    if (!read_digest(rows->text(2), key.digest) || !directory.tenants.contains(key.tenant) ||
        !parser.read_key(fields, key.fields))
      return bad_row("keys", key.public_id);
    directory.keys.emplace(key.public_id, std::move(key));
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

Result<void> DirectoryStore::apply(const DirectoryChange& change) {
  Result<Transaction> transaction = Transaction::begin(database_);
  if (!transaction) return transaction.error();
  if (change.tenant)
    if (const Result<void> done = put(*change.tenant); !done) return done;
  for (const ManagedKey& key : change.keys)
    if (const Result<void> done = put(key); !done) return done;
  if (!change.erased_tenant.empty())
    if (const Result<void> done = erase(change.erased_tenant); !done) return done;
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
      "INSERT INTO keys VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (public_id) DO UPDATE SET "
      "revoked_at = excluded.revoked_at, fields = excluded.fields");
  if (!write) return write.error();
  write->bind(1, key.public_id).bind(2, key.tenant).bind_blob(3, key.digest);
  write->bind(4, key.created_at).bind(5, key.revoked_at).bind(6, fields);
  return write->run();
}

Result<void> DirectoryStore::put(const AuditRow& row) {
  Result<Statement> write = database_.prepare(
      "INSERT INTO audit (unix_s, actor, action, target, detail) VALUES (?1, ?2, ?3, ?4, ?5)");
  if (!write) return write.error();
  write->bind(1, row.unix_s).bind(2, row.actor).bind(3, row.action).bind(4, row.target);
  write->bind(5, row.detail);
  return write->run();
}

Result<void> DirectoryStore::erase(const std::string& tenant) {
  Result<Statement> write = database_.prepare("DELETE FROM tenants WHERE id = ?1");
  if (!write) return write.error();
  return write->bind(1, tenant).run();
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
