// Response heads, written straight into an output buffer. The Date line is made once per second.
// One thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "gateway/link/decision_loop.h"
#include "shared/clock.h"

namespace sluice::gw {

class DateLine {
 public:
  std::string_view get();  // "date: ...\r\n"

 private:
  std::int64_t second_ = -1;
  std::string line_;
};

void append_status_line(std::string& out, unsigned status);
void append_header(std::string& out, std::string_view name, std::string_view value);

// x-ratelimit lines; a dimension without a limit has none.
void append_rate_limit_headers(std::string& out, const LimitsView& limits);
// "1s", "6m0s", "120ms".
void append_duration(std::string& out, Duration duration);

// A client's own id: 1 to 128 of [A-Za-z0-9._-].
bool is_valid_request_id(std::string_view id);

// W3C Trace Context, level 1, version 00: lower-case hex, neither id all zeros.
bool is_valid_traceparent(std::string_view text);

}  // namespace sluice::gw
