// Any bytes in any pieces through the stream decoder: the same text as decoding them all at once.
// The first byte seeds the cuts.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "shared/check.h"
#include "shared/random.h"
#include "tokenizer/stream_decoder.h"
#include "tokenizer/utf8.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sluice;
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data + 1), size - 1);
  tok::StreamDecoder decoder;
  std::string streamed;
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t cut = 1 + random_bits({data[0], 0, static_cast<std::uint32_t>(at)}, 0) % 5;
    decoder.push(bytes.substr(at, cut), streamed);
    CHECK(decoder.held_bytes() <= 3);
    at += cut;
  }
  CHECK(tok::is_valid_utf8(streamed));
  decoder.finish(streamed);
  std::string whole;
  tok::append_valid_utf8(bytes, whole);
  CHECK(streamed == whole);
  return 0;
}
