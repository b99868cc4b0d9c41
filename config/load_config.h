// YAML to Config and back. Unknown keys, duplicate keys, wrong types and values out of range are
// errors that name file, line, key and allowed range. The only place that reads environment
// variables.
//
// Durations are written with a unit (250ms, 10s, 5m, 2h), a bare number is refused; sizes as 8MiB,
// 64KiB, 1GiB or a number of bytes. Hostile files are bounded before they are parsed:
// kConfigBytesMax, nesting, number of nodes; anchors and aliases are refused.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"
#include "shared/result.h"

namespace sluice::cfg {

inline constexpr std::size_t kConfigBytesMax = 1u << 20;

// Errors: bad_config, detail "FILE:LINE: KEY: what is wrong; allowed: RANGE", param KEY.
Result<Config> parse_config(std::string_view yaml, const std::string& file_name);
Result<Config> load_config(const std::string& path);  // also io_error as bad_config

// Relations between keys (parse_config calls it): context fits the KV memory and the rings, TLS
// pair complete, a non-loopback address has keys, names unique, files exist where named. Errors:
// bad_config, detail "KEY: what is wrong; allowed: RANGE", param KEY.
Result<void> validate(const Config& config);

// The effective configuration as YAML that parse_config reads back to the same values. Key digests
// are masked (`masked`) for people, kept (`full`) for the children that the parent starts.
enum class Secrets : std::uint8_t { masked, full };
std::string print_config(const Config& config, Secrets secrets);

// One setting as the loader knows it; list elements are written models[].name.
struct SettingFacts {
  std::string key;
  std::string allowed;  // range and unit, as errors print it
};
std::vector<SettingFacts> known_settings();

// Where the built-in models lie: $SLUICE_DATA_DIR, else <program's folder>/../../../models (a build
// tree), else <program's folder>/../share/sluice/models.
std::string default_data_dir();
// A file in the folder of the running program.
std::string beside_program(const std::string& file);
// The model's directory or GGUF file: as configured, else the built-in one of its kind (brook,
// canned).
std::string model_path(const Model& model);
// The model's vocabulary: as configured, else the GGUF file itself or tokenizer.model in the
// directory.
std::string tokenizer_path(const Model& model);
// Where the journal and the lock lie: as configured, else /var/lib/sluice as root, else
// $XDG_STATE_HOME/sluice, else $HOME/.local/state/sluice. Errors: bad_config when none is known.
Result<std::string> effective_state_dir(const Config& config);

// For the command line: $SLUICE_URL, else where a gateway listens by default; $SLUICE_ADMIN_KEY,
// empty when not set.
std::string gateway_url();
std::string admin_key_from_environment();

// The first line of quota_store.password_file, else $SLUICE_REDIS_PASSWORD, else empty. Errors:
// bad_config, without a word of it.
Result<std::string> quota_store_password(const QuotaStore& store);

// True for 127.0.0.0/8 and ::1.
bool is_loopback(std::string_view address);

}  // namespace sluice::cfg
