// `sluice admin-key create|list|delete`: the keys of the admin routes, written into the tables of a
// state directory, also while a gateway runs on it (which looks again at SIGHUP). Each returns an
// exit code.
#pragma once

#include <string>

namespace sluice::gw {

// Prints the key, once, on stdout.
int create_admin_key(const std::string& state_dir);
int list_admin_keys(const std::string& state_dir);
int delete_admin_key(const std::string& state_dir, const std::string& public_id);

}  // namespace sluice::gw
