// Any bytes as a GGUF file: the header is read or refused, whole and from prefixes alike, and what
// is read keeps its invariants.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "shared/check.h"
#include "shared/gguf.h"
#include "tests/support/gguf_bytes.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sluice;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto header = parse_gguf_header(bytes, size);
  // A prefix asks for more, refuses what the whole is refused for, or has read the same.
  const auto part = parse_gguf_header(bytes.substr(0, size / 2), size);
  if (!header) {
    CHECK(header.error().code == Errc::bad_file && !header.error().detail.empty());
    CHECK(!part || !*part);
    return 0;
  }
  CHECK(header->has_value());
  test::check_gguf_header(**header, size, size);
  CHECK(part.has_value());
  if (*part) CHECK((*part)->data_begin == (*header)->data_begin);
  return 0;
}
