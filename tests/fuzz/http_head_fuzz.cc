// Any bytes as an HTTP request, whole and byte by byte: both must come to the same end, the same
// head and the same body, within the bounds.
#include <cstddef>
#include <cstdint>
#include <string>

#include "gateway/api/percent_decode.h"
#include "gateway/http/request_reader.h"
#include "gateway/http/routes.h"
#include "shared/check.h"

using namespace sluice;
using namespace sluice::gw;

namespace {

constexpr RequestLimits kLimits{.header_bytes_max = 2048, .body_bytes_max = 1024};

struct Outcome {
  ReadState state = ReadState::need_more;
  std::string path, body;
};

Outcome read(const std::string& text, std::size_t piece) {
  RequestReader reader(kLimits);
  Outcome outcome;
  std::string buffer;
  std::size_t sent = 0;
  while (true) {
    const RequestReader::Step step = reader.feed(buffer);
    CHECK(step.consumed <= buffer.size());
    buffer.erase(0, step.consumed);
    outcome.state = step.state;
    if (step.state == ReadState::failed) return outcome;
    if (step.state == ReadState::complete) break;
    if (step.state == ReadState::head_done || (step.consumed > 0 && !buffer.empty())) continue;
    if (sent == text.size()) return outcome;
    const std::size_t bytes = std::min(piece, text.size() - sent);
    buffer.append(text, sent, bytes);
    sent += bytes;
  }
  outcome.path = reader.head().path;
  outcome.body = reader.body();
  CHECK(outcome.body.size() <= kLimits.body_bytes_max);
  CHECK(!outcome.path.empty() && outcome.path.size() <= kLimits.header_bytes_max);
  const Route route = find_route(reader.head().method, outcome.path);
  std::string decoded;
  (void)percent_decode(route.tail, decoded);
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const Outcome whole = read(text, text.size() + 1);
  const Outcome bytewise = read(text, 1);
  if (whole.state == ReadState::complete || bytewise.state == ReadState::complete) {
    CHECK(whole.state == bytewise.state);
    CHECK(whole.path == bytewise.path && whole.body == bytewise.body);
  }
  return 0;
}
