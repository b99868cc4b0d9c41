// The connection's state machine: reading, checks before the body, answers, closing.
#include "gateway/http/session.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "gateway/api/error_response.h"
#include "gateway/api/json_text.h"
#include "gateway/api/percent_decode.h"
#include "gateway/http/completion_handler.h"
#include "gateway/http/cors.h"
#include "gateway/http/endpoints.h"

namespace sluice::gw {
namespace {

constexpr std::size_t kFirstBufferBytes = 4 << 10;
constexpr std::size_t kReadBytes = 16 << 10;         // pending read, once a connection is busy
constexpr std::size_t kKeptOutputBytes = 256 << 10;  // of capacity between answers
constexpr std::size_t kLingerBytesMax = 1 << 20;     // read over after an error, so that it arrives
constexpr Duration kLingerTimeout = std::chrono::seconds(2);
constexpr std::size_t kChunkHeadBytes = 10;  // eight hex digits, CR, LF

}  // namespace

Session::Session(Service& service, std::unique_ptr<Transport> transport, SessionOwner& owner)
    : service_(service),
      transport_(std::move(transport)),
      owner_(owner),
      reader_({service.config.http.header_bytes_max, service.config.http.body_bytes_max}) {}

Session::~Session() = default;

void Session::start() {
  now_ = service_.clock.now();
  set_phase(Phase::opening);
  transport_->open(*this);
}

void Session::on_open(IoResult result) {
  if (phase_ == Phase::closed) return retire_if_quiet();
  if (result != IoResult::ok) return close();
  now_ = service_.clock.now();
  set_phase(Phase::head);
  arm_read();
}

// ---- reading

void Session::arm_read() {
  if (is_reading_ || is_at_end_ || phase_ == Phase::closed || phase_ == Phase::opening) return;
  if (phase_ == Phase::lingering) in_begin_ = in_end_ = 0;
  if (in_begin_ == in_end_) in_begin_ = in_end_ = 0;
  // The head must fit in one piece; 4 bytes more than allowed let the reader see that it does not.
  const std::size_t bytes_max =
      std::max<std::size_t>(kReadBytes, service_.config.http.header_bytes_max + 4u);
  if (in_end_ == in_.size() && in_begin_ > 0) {
    std::memmove(in_.data(), in_.data() + in_begin_, in_end_ - in_begin_);
    in_end_ -= in_begin_;
    in_begin_ = 0;
  }
  // Idle connections hold little; a body is read in larger pieces.
  if (phase_ == Phase::body && in_.size() < kReadBytes) in_.resize(kReadBytes);
  if (in_end_ == in_.size()) {
    if (in_.size() >= bytes_max) return;  // full: what is running goes first
    in_.resize(std::min(bytes_max, std::max(kFirstBufferBytes, 2 * in_.size())));
  }
  is_reading_ = true;
  transport_->read(std::span(in_).subspan(in_end_));
}

void Session::on_read(IoResult result, std::size_t bytes) {
  is_reading_ = false;
  if (phase_ == Phase::closed) return retire_if_quiet();
  now_ = service_.clock.now();
  if (result != IoResult::ok) {
    is_at_end_ = true;
    return client_gone();
  }
  service_.metrics.bytes_read += bytes;
  in_end_ += bytes;
  if (phase_ == Phase::lingering) {
    lingered_bytes_ += bytes;
    if (lingered_bytes_ > kLingerBytesMax) return close();
  } else if (phase_ == Phase::head || phase_ == Phase::body) {
    if (phase_ == Phase::head && in_begin_ == 0 && in_end_ == bytes) set_phase(Phase::head);
    advance();
  }
  arm_read();
}

void Session::client_gone() {
  switch (phase_) {
    case Phase::replying:
      // The answer is on its way; what stands behind it is void.
      close_after_ = true;
      in_begin_ = in_end_;
      return;
    case Phase::running:
      ++service_.metrics.clients_gone;
      return close();
    default:
      return close();
  }
}

// Feeds what was read until more is needed or a request runs.
void Session::advance() {
  if (is_advancing_) return;
  is_advancing_ = true;
  while (phase_ == Phase::head || phase_ == Phase::body) {
    const std::string_view unread(in_.data() + in_begin_, in_end_ - in_begin_);
    if (phase_ == Phase::head && unread.empty()) break;
    const RequestReader::Step step = reader_.feed(unread);
    in_begin_ += step.consumed;
    if (step.state == ReadState::failed) {
      refuse_head(reader_.error());
      break;
    }
    if (phase_ == Phase::head && step.state != ReadState::need_more) {
      if (!check_head()) break;
      if (step.state == ReadState::head_done) {
        set_phase(Phase::body);
        continue;
      }
    }
    hold_body_bytes();
    if (phase_ != Phase::head && phase_ != Phase::body) break;
    if (step.state == ReadState::complete) {
      dispatch();
      break;
    }
    // Nothing complete in a full buffer: a chunk's head that will never end.
    if (step.consumed == 0 && unread.size() >= kReadBytes && phase_ == Phase::body) {
      refuse_head(make_error(Errc::malformed_http, "a chunk of the request body has no end"));
      break;
    }
    if (step.state == ReadState::need_more) break;
  }
  is_advancing_ = false;
}

// Bodies are bounded one by one and all together.
void Session::hold_body_bytes() {
  const std::uint64_t bytes = reader_.body().size();
  std::uint64_t& held = service_.metrics.body_bytes_held;
  held += bytes - body_bytes_held_;
  body_bytes_held_ = bytes;
  const std::uint64_t bytes_max = kBodiesHeldMax * service_.config.http.body_bytes_max;
  if (phase_ != Phase::body || held <= bytes_max) return;
  Error error = make_error(Errc::overloaded, "too many large request bodies at this moment");
  error.retry_after = std::chrono::seconds(1);
  refuse_head(error);
}

// ---- checks that need the head only

bool Session::check_head() {
  arrival_ = now_;
  const RequestHead& head = reader_.head();
  if (is_valid_request_id(head.request_id)) {
    request_id_.assign(head.request_id);
  } else {
    request_id_.assign("req_");
    service_.ids.append_hex(request_id_, 2);
  }
  if (!head.keep_alive || is_draining_) close_after_ = true;
  route_ = find_route(head.method, head.path);
  if (route_.result == RouteResult::preflight) {
    if (head.has_body) close_after_ = true;
    respond_preflight();
    return false;
  }
  if (const Result<void> checked = check_request(); !checked) {
    // Whatever body follows is not read, so that the connection cannot be used again.
    respond_error(checked.error(), head.has_body ? KeepAlive::close : KeepAlive::as_asked);
    return false;
  }
  if (head.expects_continue && head.has_body) {
    out_.append("HTTP/1.1 100 Continue\r\n\r\n");
    flush();
  }
  return true;
}

Result<void> Session::check_request() {
  const RequestHead& head = reader_.head();
  if (route_.result == RouteResult::unknown)
    return make_error(Errc::not_found, "there is no such route here");
  if (route_.result == RouteResult::wrong_method)
    return make_error(Errc::method_not_allowed,
                      std::string("this route allows ").append(route_.allow));
  if (route_.needs_tenant) {
    const Result<Caller> caller = service_.auth.caller_of(head.authorization, route_.scope);
    if (!caller) return caller.error();
    caller_ = *caller;
  }
  if (route_.needs_admin)
    if (const Result<void> checked = check_admin(); !checked) return checked;
  const bool has_none = route_.is_body_optional && !head.has_body;
  if (route_.takes_body && !has_none && head.content_type != MediaType::json)
    return make_error(Errc::unsupported_media_type,
                      "the request body must be sent with content-type: application/json; with "
                      "curl: -H 'Content-Type: application/json'");
  return {};
}

// A tenant's key is known here, but not for this.
Result<void> Session::check_admin() {
  if (service_.admin == nullptr) return make_error(Errc::not_found, "there is no such route here");
  const std::string& authorization = reader_.head().authorization;
  const Result<std::string> actor = service_.admin->actor_of(Auth::bearer_token(authorization));
  if (actor) {
    actor_ = *actor;
    if (!percent_decode(route_.tail, admin_id_))
      return make_error(Errc::not_found, "there is no such route here");
    return {};
  }
  if (service_.auth.knows(authorization))
    return make_error(Errc::admin_required, "this route needs an admin key");
  return actor.error();
}

void Session::start_admin() {
  const RequestHead& head = reader_.head();
  admin_call_ = std::make_shared<Session*>(this);
  AdminCall call{
      route_.noun,   head.method,          admin_id_, head.query, std::move(reader_.body()),
      head.if_match, head.idempotency_key, actor_};
  service_.admin->call(std::move(call), [target = admin_call_](AdminAnswer& answer) {
    if (*target != nullptr) (*target)->finish_admin(answer);
  });
}

void Session::finish_admin(AdminAnswer& answer) {
  admin_call_.reset();
  now_ = service_.clock.now();
  if (answer.error) return respond_error(*answer.error);
  if (answer.version != 0) answer_header_ = "etag: \"" + std::to_string(answer.version) + "\"\r\n";
  if (answer.is_replayed) answer_header_ += "idempotency-replayed: true\r\n";
  if (!answer.last_id.empty()) answer_header_ += "x-last-id: " + answer.last_id + "\r\n";
  respond(answer.status, answer.content_type, answer.body);
}

// A request that could not be read to its end: answered, then closed.
void Session::refuse_head(const Error& error) {
  if (request_id_.empty()) {
    request_id_.assign("req_");
    service_.ids.append_hex(request_id_, 2);
  }
  respond_error(error, KeepAlive::close);
  release_body();
}

void Session::release_body() {
  service_.metrics.body_bytes_held -= body_bytes_held_;
  body_bytes_held_ = 0;
  reader_.body().clear();
  reader_.body().shrink_to_fit();
}

void Session::dispatch() {
  set_phase(Phase::running);
  switch (route_.endpoint) {
    case Endpoint::chat_completions:
    case Endpoint::completions:
    case Endpoint::input_tokens:
    case Endpoint::tokenize:
    case Endpoint::detokenize:
    case Endpoint::embeddings:
      break;
    case Endpoint::admin:
      return start_admin();
    default:
      return answer_endpoint(*this);
  }
  if (!completion_) completion_ = std::make_unique<CompletionHandler>(*this);
  switch (route_.endpoint) {
    case Endpoint::chat_completions:
      return completion_->start_generation(ApiKind::chat);
    case Endpoint::completions:
      return completion_->start_generation(ApiKind::completion);
    case Endpoint::embeddings:
      return completion_->start_generation(ApiKind::embedding);
    case Endpoint::input_tokens:
      return completion_->start_count();
    case Endpoint::tokenize:
      return completion_->start_tokenize();
    default:
      return completion_->start_detokenize();
  }
}

// ---- answers

void Session::append_connection_header(std::string& out) {
  if (close_after_)
    out.append("connection: close\r\n");
  else if (!reader_.head().is_http11)
    out.append("connection: keep-alive\r\n");
}

void Session::append_common_headers(std::string& out, bool with_limits) {
  out.append(service_.date.get());
  append_connection_header(out);
  append_header(out, "x-request-id", request_id_);
  // The caller's trace goes back with the answer; no span of this gateway's own is made.
  if (is_valid_traceparent(reader_.head().traceparent))
    append_header(out, "traceparent", reader_.head().traceparent);
  const std::string& origin = reader_.head().origin;
  if (is_origin_allowed(service_.config.cors, origin)) append_cors_headers(out, origin);
  if (!with_limits) return;
  append_rate_limit_headers(out, service_.loop.limits(caller_));
  out.append("openai-processing-ms: ");
  append_integer(out,
                 std::max<std::int64_t>(0, (service_.clock.now() - arrival_).count() / 1'000'000));
  out.append("\r\n");
}

void Session::respond(unsigned status, std::string_view content_type, std::string_view text,
                      KeepAlive keep_alive) {
  if (keep_alive == KeepAlive::close) close_after_ = true;
  append_status_line(out_, status);
  append_common_headers(out_, route_.needs_tenant && status != 401);
  append_header(out_, "content-type", content_type);
  out_.append(std::exchange(answer_header_, {}));
  out_.append("content-length: ");
  append_integer(out_, text.size());
  out_.append("\r\n\r\n");
  if (!route_.omits_body) out_.append(text);
  service_.metrics.count_response(route_.endpoint, status);
  has_begun_ = true;
  set_phase(Phase::replying);
  flush();
}

void Session::respond_error(const Error& error, KeepAlive keep_alive) {
  const unsigned status = error_row(error.code).http_status;
  service_.metrics.count_error(error.code);
  if (keep_alive == KeepAlive::close) close_after_ = true;
  std::string& text = service_.scratch;
  text.clear();
  append_error_json(text, error);
  append_status_line(out_, status);
  append_common_headers(out_, route_.needs_tenant && status != 401);
  append_error_headers(out_, error);
  if (status == 405) append_header(out_, "allow", route_.allow);
  out_.append("content-type: application/json\r\ncontent-length: ");
  append_integer(out_, text.size());
  out_.append("\r\n\r\n");
  if (!route_.omits_body) out_.append(text);
  text.clear();
  service_.metrics.count_response(route_.endpoint, status);
  has_begun_ = true;
  set_phase(Phase::replying);
  flush();
}

void Session::respond_preflight() {
  append_status_line(out_, 204);
  append_common_headers(out_, false);
  const RequestHead& head = reader_.head();
  if (is_origin_allowed(service_.config.cors, head.origin))
    append_preflight_headers(out_, head, route_.allow);
  append_header(out_, "allow", route_.allow);
  out_.append("\r\n");
  service_.metrics.count_response(Endpoint::none, 204);
  has_begun_ = true;
  set_phase(Phase::replying);
  flush();
}

void Session::begin_stream() {
  is_chunked_ = reader_.head().is_http11;
  if (!is_chunked_) close_after_ = true;  // the end of the connection is the end of the stream
  append_status_line(out_, 200);
  append_common_headers(out_, true);
  out_.append(
      "content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
      "x-accel-buffering: no\r\n");
  out_.append(is_chunked_ ? "transfer-encoding: chunked\r\n\r\n" : "\r\n");
  service_.metrics.count_response(route_.endpoint, 200);
  has_begun_ = true;
}

std::string& Session::begin_chunk() {
  chunk_at_ = out_.size();
  if (is_chunked_) out_.append("00000000\r\n");  // the size is filled in by end_chunk()
  return out_;
}

void Session::end_chunk() {
  if (!is_chunked_) return;
  std::size_t bytes = out_.size() - chunk_at_ - kChunkHeadBytes;
  if (bytes == 0) {  // an empty chunk would end the stream
    out_.resize(chunk_at_);
    return;
  }
  constexpr char kHex[] = "0123456789abcdef";
  for (std::size_t digit = 8; digit-- > 0; bytes >>= 4) out_[chunk_at_ + digit] = kHex[bytes & 15];
  out_.append("\r\n");
}

void Session::finish_stream() {
  if (is_chunked_) out_.append("0\r\n\r\n");
  set_phase(Phase::replying);
  flush();
}

void Session::abort_stream() {
  close_after_ = true;
  set_phase(Phase::replying);
  flush();
}

void Session::flush() {
  if (is_writing_ || out_.empty() || phase_ == Phase::closed) return;
  std::swap(out_, writing_);
  written_ = 0;
  is_writing_ = true;
  write_deadline_ = now_ + service_.config.http.write_timeout;
  commit_deadline_ = now_ + service_.config.http.stream_commit;
  transport_->write(writing_);
}

void Session::on_written(IoResult result, std::size_t bytes) {
  if (phase_ == Phase::closed) {
    is_writing_ = false;
    return retire_if_quiet();
  }
  now_ = service_.clock.now();
  if (result != IoResult::ok) {
    is_writing_ = false;
    if (phase_ == Phase::running) ++service_.metrics.clients_gone;
    return close();
  }
  service_.metrics.bytes_written += bytes;
  written_ += bytes;
  if (written_ < writing_.size()) {
    write_deadline_ = now_ + service_.config.http.write_timeout;
    transport_->write(std::string_view(writing_).substr(written_));
    return;
  }
  is_writing_ = false;
  writing_.clear();
  if (writing_.capacity() > kKeptOutputBytes) writing_.shrink_to_fit();
  if (!out_.empty()) return flush();
  if (phase_ == Phase::replying) return end_response();
  if (phase_ == Phase::running && completion_ && completion_->is_active())
    completion_->on_writable();
}

void Session::end_response() {
  if (close_after_ || is_draining_) return linger();
  service_.metrics.body_bytes_held -= body_bytes_held_;
  body_bytes_held_ = 0;
  reader_.reset();  // keeps a small body's memory
  route_ = Route();
  request_id_.clear();
  has_begun_ = is_chunked_ = false;
  set_phase(Phase::head);
  advance();
  arm_read();
}

// Sends the end and reads on for a moment: closing with unread bytes would reset the connection and
// could take the answer with it.
void Session::linger() {
  if (is_at_end_) return close();
  set_phase(Phase::lingering);
  transport_->shutdown_send();
  arm_read();
}

// ---- time and end

Duration Session::phase_timeout() const {
  const cfg::HttpLimits& http = service_.config.http;
  switch (phase_) {
    case Phase::opening:
      return http.header_timeout;
    case Phase::head:
      return in_begin_ == in_end_ ? Duration(http.idle_timeout) : http.header_timeout;
    case Phase::body:
      return http.body_timeout;
    case Phase::lingering:
      return kLingerTimeout;
    default:
      return Duration::max();
  }
}

void Session::set_phase(Phase phase) {
  phase_ = phase;
  const Duration timeout = phase_timeout();
  deadline_ = timeout == Duration::max() ? Tick::max() : now_ + timeout;
  if (phase == Phase::running) commit_deadline_ = now_ + service_.config.http.stream_commit;
}

void Session::on_tick(Tick now) {
  if (phase_ == Phase::closed) return;
  now_ = now;
  if (is_writing_ && now >= write_deadline_) {
    if (phase_ == Phase::running) ++service_.metrics.clients_gone;
    return close();
  }
  if (now >= deadline_) {
    const bool is_inside_request =
        phase_ == Phase::body || (phase_ == Phase::head && in_begin_ < in_end_);
    if (!is_inside_request) return close();
    return refuse_head(make_error(Errc::request_timeout, "the request did not arrive in time"));
  }
  if (phase_ == Phase::running && !is_writing_ && now >= commit_deadline_ && completion_ &&
      completion_->is_stream()) {
    commit_deadline_ = now + service_.config.http.stream_commit;
    completion_->on_commit_due();
  }
}

void Session::drain() {
  is_draining_ = true;
  const bool is_idle = phase_ == Phase::opening || (phase_ == Phase::head && in_begin_ == in_end_);
  if (is_idle) close();
}

void Session::recheck_key() {
  const bool has_request = phase_ == Phase::body || phase_ == Phase::running;
  if (!has_request || !route_.needs_tenant) return;
  const std::string& authorization = reader_.head().authorization;
  const Result<Caller> caller = service_.auth.caller_of(authorization, route_.scope);
  if (caller) {
    caller_ = *caller;  // its place in the list may be another
  } else if (phase_ == Phase::body) {
    refuse_head(caller.error());
  } else if (completion_ && completion_->is_active()) {
    completion_->fail(service_.auth.knows(authorization)
                          ? caller.error()
                          : make_error(Errc::invalid_api_key, "the API key was revoked"));
  }
}

void Session::close() {
  if (phase_ == Phase::closed) return;
  release_body();
  if (admin_call_) *std::exchange(admin_call_, nullptr) = nullptr;
  set_phase(Phase::closed);
  if (completion_ && completion_->is_active()) completion_->cancel(CancelCause::client_gone);
  transport_->close();
  retire_if_quiet();
}

void Session::retire_if_quiet() {
  if (is_retired_ || !transport_->is_quiet()) return;
  is_retired_ = true;
  owner_.retire(*this);
}

}  // namespace sluice::gw
