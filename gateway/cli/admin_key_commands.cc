// The tables are opened as the gateway does.
#include "gateway/cli/admin_key_commands.h"

#include <chrono>
#include <iostream>

#include "gateway/admin/admin_keys.h"
#include "gateway/admin/directory_store.h"

namespace sluice::gw {
namespace {

int fail(const Error& error) {
  std::cerr << "sluice: " << error.detail << '\n';
  return 1;
}

void say_how_it_acts() {
  std::cerr << "A running gateway takes this over at SIGHUP.\n";
}

}  // namespace

int create_admin_key(const std::string& state_dir) {
  const Result<std::string> secret = load_hash_secret(state_dir + "/key_hash_secret");
  if (!secret) return fail(secret.error());
  Result<DirectoryStore> store = DirectoryStore::open(state_dir + "/store.db");
  if (!store) return fail(store.error());
  const NewKey made = make_new_key(kAdminKeyPrefix, *secret);
  const std::int64_t now = std::chrono::duration_cast<std::chrono::seconds>(
                               std::chrono::system_clock::now().time_since_epoch())
                               .count();
  if (const Result<void> added = store->add_admin_key({made.public_id, made.digest}, now); !added)
    return fail(added.error());
  std::cout << made.text << '\n';
  say_how_it_acts();
  return 0;
}

int list_admin_keys(const std::string& state_dir) {
  Result<DirectoryStore> store = DirectoryStore::open(state_dir + "/store.db");
  if (!store) return fail(store.error());
  const Result<std::vector<AdminKey>> keys = store->load_admin_keys();
  if (!keys) return fail(keys.error());
  for (const AdminKey& key : *keys) std::cout << key.public_id << '\n';
  return 0;
}

int delete_admin_key(const std::string& state_dir, const std::string& public_id) {
  Result<DirectoryStore> store = DirectoryStore::open(state_dir + "/store.db");
  if (!store) return fail(store.error());
  const Result<bool> deleted = store->delete_admin_key(public_id);
  if (!deleted) return fail(deleted.error());
  if (!*deleted) return fail(make_error(Errc::not_found, "there is no such admin key"));
  say_how_it_acts();
  return 0;
}

}  // namespace sluice::gw
