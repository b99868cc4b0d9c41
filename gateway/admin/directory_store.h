// DirectoryStore: the directory's tables in SQLite. A change and its audit row are one transaction;
// when apply() returned they survive a power loss. One thread at a time.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "gateway/admin/admin_keys.h"
#include "gateway/admin/directory.h"
#include "gateway/store/sqlite.h"

namespace sluice::gw {

inline constexpr std::int64_t kAuditRowsMax = 100'000;  // the oldest go first

struct AdminKey {
  std::string public_id;
  KeyDigest digest{};
};

class DirectoryStore {
 public:
  static Result<DirectoryStore> open(const std::string& path);

  // Errors: bad_file where a row is not what this program wrote.
  Result<Directory> load();
  Result<std::vector<AdminKey>> load_admin_keys();
  Result<void> add_admin_key(const AdminKey& key, std::int64_t unix_s);
  Result<bool> delete_admin_key(const std::string& public_id);  // false: there is none
  Result<void> apply(const DirectoryChange& change);
  Result<void> add_audit(std::span<const AuditRow> rows);  // what happened by itself
  // Newest first, ids below `before` (0: from the newest).
  Result<std::vector<std::pair<std::int64_t, AuditRow>>> audit(std::int64_t before,
                                                               std::int64_t count_max);

 private:
  explicit DirectoryStore(Sqlite database) : database_(std::move(database)) {}
  Result<void> load_tenants(Directory& directory);
  Result<void> load_keys(Directory& directory);
  Result<void> put(const ManagedTenant& tenant);
  Result<void> put(const ManagedKey& key);
  Result<void> put(const AuditRow& row);
  Result<void> put(const IdempotentAnswer& answer);
  Result<void> put_revision(std::int64_t revision);
  Result<void> erase(const char* sql, const std::string& id);
  Result<void> load_answers(Directory& directory);
  Result<void> load_orders(Directory& directory);
  Result<void> put(const std::string& id, const FleetOrder& order);

  Sqlite database_;
};

}  // namespace sluice::gw
