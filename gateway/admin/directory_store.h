// DirectoryStore: the directory's tables in SQLite. A change and its audit row are one transaction;
// when apply() returned they survive a power loss. One thread at a time.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "gateway/admin/admin_keys.h"
#include "gateway/admin/directory.h"
#include "gateway/store/sqlite.h"

namespace sluice::gw {

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
  Result<void> apply(const DirectoryChange& change);
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
  Result<void> erase(const std::string& tenant);

  Sqlite database_;
};

}  // namespace sluice::gw
