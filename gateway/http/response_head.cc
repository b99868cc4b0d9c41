// Status lines, dates and the headers of limits.
#include "gateway/http/response_head.h"

#include <algorithm>
#include <ctime>

#include "gateway/api/json_text.h"

namespace sluice::gw {
namespace {

std::string_view reason_of(unsigned status) {
  switch (status) {
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 412:
      return "Precondition Failed";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    default:
      return "Unknown";
  }
}

}  // namespace

std::string_view DateLine::get() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  if (now.tv_sec != second_) {
    second_ = now.tv_sec;
    std::tm parts{};
    gmtime_r(&now.tv_sec, &parts);
    // Written out by hand: strftime's names depend on the locale.
    constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    char text[64];
    const int size =
        std::snprintf(text, sizeof text, "date: %s, %02d %s %04d %02d:%02d:%02d GMT\r\n",
                      kDays[parts.tm_wday], parts.tm_mday, kMonths[parts.tm_mon],
                      parts.tm_year + 1900, parts.tm_hour, parts.tm_min, parts.tm_sec);
    line_.assign(text, static_cast<std::size_t>(size));
  }
  return line_;
}

void append_status_line(std::string& out, unsigned status) {
  if (status == 200) {
    out.append("HTTP/1.1 200 OK\r\n");
    return;
  }
  out.append("HTTP/1.1 ");
  append_integer(out, status);
  out.append(" ").append(reason_of(status)).append("\r\n");
}

void append_header(std::string& out, std::string_view name, std::string_view value) {
  out.append(name).append(": ").append(value).append("\r\n");
}

void append_duration(std::string& out, Duration duration) {
  const std::int64_t ms = std::max<std::int64_t>(0, (duration.count() + 999'999) / 1'000'000);
  if (ms < 1000) {
    append_integer(out, ms);
    out.append("ms");
    return;
  }
  const std::int64_t seconds = (ms + 999) / 1000;
  if (seconds >= 3600) {
    append_integer(out, seconds / 3600);
    out.push_back('h');
  }
  if (seconds >= 60) {
    append_integer(out, seconds % 3600 / 60);
    out.push_back('m');
  }
  append_integer(out, seconds % 60);
  out.push_back('s');
}

void append_rate_limit_headers(std::string& out, const LimitsView& limits) {
  const auto append = [&](std::string_view what, std::uint64_t limit, std::uint64_t remaining,
                          Duration reset, bool is_own) {
    if (limit == 0 && !is_own) return;
    out.append("x-ratelimit-limit-").append(what).append(": ");
    append_integer(out, limit);
    out.append("\r\nx-ratelimit-remaining-").append(what).append(": ");
    append_integer(out, remaining);
    out.append("\r\nx-ratelimit-reset-").append(what).append(": ");
    append_duration(out, reset);
    out.append("\r\n");
  };
  append("requests", limits.requests_limit, limits.requests_remaining, limits.requests_reset,
         limits.has_requests_limit);
  append("tokens", limits.tokens_limit, limits.tokens_remaining, limits.tokens_reset,
         limits.has_tokens_limit);
}

bool is_valid_request_id(std::string_view id) {
  return !id.empty() && id.size() <= 128 && std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  });
}

//   00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01      version, trace, parent, flags
bool is_valid_traceparent(std::string_view text) {
  constexpr std::string_view kShape = "00-tttttttttttttttttttttttttttttttt-pppppppppppppppp-ff";
  if (text.size() != kShape.size()) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool is_hex = (text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f');
    const bool is_literal = kShape[i] == '-' || kShape[i] == '0';
    if (is_literal ? text[i] != kShape[i] : !is_hex) return false;
  }
  return text.substr(3, 32).find_first_not_of('0') != std::string_view::npos &&
         text.substr(36, 16).find_first_not_of('0') != std::string_view::npos;
}

}  // namespace sluice::gw
