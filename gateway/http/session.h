// Session: one connection. It keeps a read pending at all times, so that a client that leaves is
// seen at once, also while its request runs; what arrives meanwhile waits in a bounded buffer (full
// = no further read). One request is answered at a time, in order.
//
//   opening -> head -> body -> running -> replying -> head ...        kept alive
//                                  |          \-> lingering -> closed  after errors
//
// Output: `out_` grows while nothing or something is in flight; one buffer is in flight at most.
// Deadlines are looked at by on_tick(), which the server calls a few times a second: no timer per
// request. Event loop only. Lives until its owner deletes it after retire().
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "gateway/http/request_reader.h"
#include "gateway/http/routes.h"
#include "gateway/http/service.h"
#include "gateway/http/transport.h"

namespace sluice::gw {

class Session;
class CompletionHandler;
struct AdminAnswer;

class SessionOwner {
 public:
  virtual ~SessionOwner() = default;
  // The session is closed and quiet: delete it, but not inside this call.
  virtual void retire(Session& session) = 0;
};

enum class KeepAlive : std::uint8_t { as_asked, close };

class Session final : public TransportEvents {
 public:
  Session(Service& service, std::unique_ptr<Transport> transport, SessionOwner& owner);
  ~Session() override;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  void start();
  void on_tick(Tick now);
  void drain();  // closes when idle, else after the answer
  // The keys have changed: a request whose key is gone ends with invalid_api_key, at once.
  void recheck_key();
  void close();  // at once; a running request is cancelled
  bool is_closed() const { return phase_ == Phase::closed; }
  std::size_t owner_index = 0;  // the owner's

  // ---- for handlers, while their request runs
  Service& service() { return service_; }
  const RequestHead& head() const { return reader_.head(); }
  std::string& body() { return reader_.body(); }
  const Route& route() const { return route_; }
  TenantId tenant() const { return caller_.tenant; }
  Caller caller() const { return caller_; }
  Tick arrival() const { return arrival_; }

  // The whole answer at once. `text` may be the service's scratch buffer.
  void respond(unsigned status, std::string_view content_type, std::string_view text,
               KeepAlive keep_alive = KeepAlive::as_asked);
  void respond_json(std::string_view text) { respond(200, "application/json", text); }
  void respond_error(const Error& error, KeepAlive keep_alive = KeepAlive::as_asked);

  // An event stream: begin once, then chunks whenever is_writing() is false.
  bool has_begun() const { return has_begun_; }
  bool is_writing() const { return is_writing_; }
  void begin_stream();
  std::string& begin_chunk();  // append events to it ...
  void end_chunk();            // ... then close the chunk
  void flush();                // starts the write of all that was appended
  void finish_stream();        // end of the answer; flushes
  void abort_stream();         // after an error event: flushes, then closes without an end mark

 private:
  enum class Phase : std::uint8_t { opening, head, body, running, replying, lingering, closed };

  void on_open(IoResult result) override;
  void on_read(IoResult result, std::size_t bytes) override;
  void on_written(IoResult result, std::size_t bytes) override;

  void arm_read();
  void advance();
  bool check_head();  // false: answered
  Result<void> check_request();
  void refuse_head(const Error& error);
  void dispatch();
  void respond_preflight();
  Result<void> check_admin();
  void start_admin();
  void finish_admin(AdminAnswer& answer);
  void client_gone();
  void end_response();
  void linger();
  void append_common_headers(std::string& out, bool with_limits);
  void append_connection_header(std::string& out);
  void hold_body_bytes();
  void release_body();
  void retire_if_quiet();
  Duration phase_timeout() const;
  void set_phase(Phase phase);

  Service& service_;
  std::unique_ptr<Transport> transport_;
  SessionOwner& owner_;
  RequestReader reader_;

  Phase phase_ = Phase::opening;
  Route route_;
  Caller caller_;
  std::string request_id_;
  Tick arrival_{};
  Tick now_{};              // of the last event
  Tick deadline_{};         // of the phase
  Tick write_deadline_{};   // of the write in flight
  Tick commit_deadline_{};  // of a running stream: a keep-alive is due

  std::string in_;  // buffer; [in_begin_, in_end_) is unread
  std::size_t in_begin_ = 0, in_end_ = 0;
  std::string out_;           // to be written next
  std::string writing_;       // in flight
  std::size_t written_ = 0;   // of writing_
  std::size_t chunk_at_ = 0;  // start of the open chunk in out_
  std::uint64_t body_bytes_held_ = 0;
  std::size_t lingered_bytes_ = 0;

  bool is_reading_ = false;
  bool is_writing_ = false;
  bool has_begun_ = false;  // bytes of the answer were appended
  bool is_chunked_ = false;
  bool close_after_ = false;  // no further request on this connection
  bool is_at_end_ = false;    // the client will send nothing more
  bool is_draining_ = false;
  bool is_advancing_ = false;
  bool is_retired_ = false;

  std::string actor_;          // public id of the admin key
  std::string admin_id_;       // decoded parameter of an admin route
  std::string answer_header_;  // of the next answer
  // What an admin call holds of this session; null inside once the session is closed.
  std::shared_ptr<Session*> admin_call_;
  std::unique_ptr<CompletionHandler> completion_;  // kept from request to request
};

}  // namespace sluice::gw
