// Any bytes as a configuration file: an answer or a bad_config error, no crash, no hang; what is
// accepted prints and parses back to the same values.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "config/load_config.h"
#include "shared/check.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sluice;
  const std::string_view yaml(reinterpret_cast<const char*>(data), size);
  const auto config = cfg::parse_config(yaml, "fuzz.yaml");
  if (!config) {
    CHECK(config.error().code == Errc::bad_config);
    CHECK(config.error().detail.starts_with("fuzz.yaml"));
    return 0;
  }
  const auto again = cfg::parse_config(cfg::print_config(*config, cfg::Secrets::full), "printed");
  CHECK(again.has_value());
  CHECK(*again == *config);
  return 0;
}
