// SseParser and HttpResponseParser on hostile bytes. The first byte picks how the rest is cut; the
// events must equal those of the obvious reader, and the framing of a response must not depend on
// where its bytes were cut.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "gateway/bench/http_response_parser.h"
#include "gateway/bench/sse_parser.h"
#include "shared/check.h"
#include "tests/unit/gateway_bench/naive_sse.h"
#include "tests/unit/gateway_bench/split_feeder.h"

namespace sluice::bench {
namespace {

NamedEvents events_of(std::string_view stream, std::uint64_t seed, std::size_t piece_max) {
  SseParser parser;
  NamedEvents events;
  feed_in_pieces(stream, seed, piece_max, [&](std::string_view piece) {
    SseEvent event;
    while (parser.next(piece, event) == SseParse::event)
      events.emplace_back(event.type, event.data);
  });
  return events;
}

struct Framed {
  HttpParse end = HttpParse::more;
  std::string body;
  int status = 0;
};

Framed frame(std::string_view bytes, std::uint64_t seed, std::size_t piece_max) {
  HttpResponseParser parser;
  Framed framed;
  feed_in_pieces(bytes, seed, piece_max, [&](std::string_view piece) {
    for (;;) {
      const HttpStep step = parser.next(piece);
      CHECK(step.consumed <= piece.size() && step.body.size() <= step.consumed);
      piece.remove_prefix(step.consumed);
      framed.end = step.parse;
      framed.body += step.body;
      if (step.parse != HttpParse::body) break;
    }
  });
  framed.status = parser.status();
  return framed;
}

}  // namespace
}  // namespace sluice::bench

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sluice::bench;
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::size_t piece_max = 1 + data[0] % 32;
  CHECK(events_of(bytes, data[0], piece_max) == naive_events(bytes));
  const Framed pieces = frame(bytes, data[0], piece_max);
  const Framed whole = frame(bytes, 0, bytes.size() + 1);
  CHECK(pieces.body == whole.body && pieces.end == whole.end);
  CHECK(pieces.end == HttpParse::error || pieces.status == whole.status);
  return 0;
}
