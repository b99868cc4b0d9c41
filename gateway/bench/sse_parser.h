// SseParser: an incremental parser of text/event-stream (WHATWG HTML, section 9.2.6) for the load
// client and the tests: lines end with LF, CR or CRLF, `data:` lines join with LF, comments and
// unknown fields are skipped, a blank line dispatches an event that has data.
//
// An event that lies whole in the offered bytes and has one data line (every event of ours) is
// handed out as a view without a copy; only events that straddle two reads are gathered. Memory is
// bounded by event_bytes_max. No thread rule.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace sluice::bench {

struct SseEvent {
  std::string_view type;  // of the `event:` field; empty means "message"
  std::string_view data;
};

enum class SseParse : std::uint8_t {
  event,      // `event` is set; its views live until the next call or the end of the input's bytes
  more,       // the input is used up
  too_large,  // an event exceeds the bound; the parser stays in this state
};

class SseParser {
 public:
  explicit SseParser(std::size_t event_bytes_max = 4u << 20) : event_bytes_max_(event_bytes_max) {}

  void reset();
  // Takes bytes from the front of `input` up to the end of one event.
  SseParse next(std::string_view& input, SseEvent& event);

 private:
  bool try_whole_event(std::string_view& input, SseEvent& event);
  bool take_line_end(std::string_view& input);
  bool on_line();  // true: the line dispatched an event

  std::size_t event_bytes_max_;
  std::string line_;  // the unfinished line
  std::string data_;  // gathered data lines
  std::string type_;
  std::string event_type_;  // of the event handed out last
  std::string event_data_;
  bool has_data_ = false;
  bool after_cr_ = false;  // a LF that follows belongs to the line that ended
  bool at_start_ = true;   // of the stream: a byte order mark may stand here
  bool too_large_ = false;
};

}  // namespace sluice::bench
