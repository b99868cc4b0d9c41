// Accepting, the table of sessions, the common tick.
#include "gateway/http/server.h"

#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <vector>

#include "gateway/http/asio_transport.h"
#include "gateway/http/completion_handler.h"
#include "gateway/http/session.h"
#include "gateway/http/tls.h"

namespace sluice::gw {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

// Deadlines are noticed at most so late; short ones (tests) shorten the period.
constexpr Duration kTickMax = std::chrono::milliseconds(250);
constexpr Duration kTickMin = std::chrono::milliseconds(5);

constexpr std::string_view kRefusal =
    "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
    "connection: close\r\ncontent-length: 125\r\n\r\n"
    "{\"error\":{\"message\":\"the server has too many connections "
    "open\",\"type\":\"server_error\","
    "\"param\":null,\"code\":\"overloaded\"}}\n\n\n\n\n\n";

Duration tick_period(const cfg::HttpLimits& http) {
  const Duration shortest =
      std::min<Duration>({http.header_timeout, http.body_timeout, http.idle_timeout,
                          http.write_timeout, http.stream_commit});
  return std::clamp<Duration>(shortest / 4, kTickMin, kTickMax);
}

}  // namespace

struct Server::State final : SessionOwner, std::enable_shared_from_this<Server::State> {
  State(asio::io_context& context, Service& shared)
      : io(context), service(shared), acceptor(context), timer(context) {}

  void accept();
  void on_accept(const error_code& error, TcpSocket socket);
  void refuse(TcpSocket socket);
  void tick();
  void retire(Session& session) override;
  void clean();
  void check_empty();
  void shut();

  asio::io_context& io;
  Service& service;
  asio::basic_socket_acceptor<asio::ip::tcp, asio::io_context::executor_type> acceptor;
  asio::basic_waitable_timer<std::chrono::steady_clock,
                             asio::wait_traits<std::chrono::steady_clock>,
                             asio::io_context::executor_type>
      timer;
  std::unique_ptr<asio::ssl::context> tls;
  std::vector<std::unique_ptr<Session>> sessions;  // unordered; each knows its index
  std::vector<std::unique_ptr<Session>> retired;   // deleted from the loop, never inside a session
  std::function<void()> on_empty;
  bool is_accepting = false;
  bool is_paused = false;  // out of descriptors: accepting goes on at the next tick
  bool is_shut = false;
};

Server::Server(asio::io_context& io, Service& service)
    : state_(std::make_shared<State>(io, service)) {}

Server::~Server() {
  state_->shut();
}

Result<std::uint16_t> Server::listen(const std::string& address, std::uint16_t port) {
  State& s = *state_;
  error_code error;
  const asio::ip::address parsed = asio::ip::make_address(address, error);
  if (error)
    return make_error(Errc::bad_config, "'" + address + "' is no IP address", "listen.address");
  if (!parsed.is_loopback() && s.service.auth.is_open())
    return make_error(Errc::bad_config,
                      "without API keys only a loopback address may be served, not " + address,
                      "listen.address");
  Result<std::unique_ptr<asio::ssl::context>> tls = make_tls_context(s.service.config.listen);
  if (!tls) return tls.error();
  s.tls = std::move(*tls);
  const asio::ip::tcp::endpoint endpoint(parsed, port);
  s.acceptor.open(endpoint.protocol(), error);
  if (!error) s.acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error) s.acceptor.bind(endpoint, error);
  if (!error) s.acceptor.listen(4096, error);
  if (error)
    return make_error(Errc::io_error, "cannot listen on " + address + " port " +
                                          std::to_string(port) + ": " + error.message());
  s.is_accepting = true;
  s.accept();
  s.tick();
  return s.acceptor.local_endpoint().port();
}

// Open connections hold their own reference to the context that they began with.
Result<void> Server::reload_certificate(const cfg::Listen& listen) {
  if (!state_->tls || listen.tls_certificate.empty()) return {};
  Result<std::unique_ptr<asio::ssl::context>> tls = make_tls_context(listen);
  if (!tls) return tls.error();
  state_->tls = std::move(*tls);
  return {};
}

void Server::begin_drain(std::function<void()> on_empty) {
  State& s = *state_;
  s.is_accepting = false;
  error_code ignored;
  s.acceptor.close(ignored);
  s.on_empty = std::move(on_empty);
  // drain() may retire a session, which moves the last one into its place.
  for (std::size_t i = s.sessions.size(); i-- > 0;) s.sessions[i]->drain();
  s.check_empty();
}

void Server::close_all() {
  for (std::size_t i = state_->sessions.size(); i-- > 0;) state_->sessions[i]->close();
}

void Server::recheck_keys() {
  // A request that ends may retire its session, which moves the last one into its place.
  for (std::size_t i = state_->sessions.size(); i-- > 0;) state_->sessions[i]->recheck_key();
}

void Server::recheck_keys(std::vector<TenantId> of) {
  std::sort(of.begin(), of.end());
  for (std::size_t i = state_->sessions.size(); i-- > 0;) {
    Session& session = *state_->sessions[i];
    if (std::binary_search(of.begin(), of.end(), session.tenant())) session.recheck_key();
  }
}

std::size_t Server::num_sessions() const {
  return state_->sessions.size();
}

void Server::State::accept() {
  if (!is_accepting) return;
  acceptor.async_accept([self = shared_from_this()](const error_code& error, TcpSocket socket) {
    self->on_accept(error, std::move(socket));
  });
}

void Server::State::on_accept(const error_code& error, TcpSocket socket) {
  if (!is_accepting) return;
  if (error == asio::error::no_descriptors || error == asio::error::no_buffer_space ||
      error == asio::error::no_memory) {
    spdlog::warn("accept_paused reason=\"{}\"", error.message());
    is_paused = true;
    return;
  }
  if (!error) {
    if (sessions.size() >= service.config.http.connections_max) {
      refuse(std::move(socket));
    } else {
      ++service.metrics.connections_opened;
      ++service.metrics.connections_open;
      std::unique_ptr<Transport> transport =
          tls ? make_tls_transport(std::move(socket), *tls) : make_tcp_transport(std::move(socket));
      auto session = std::make_unique<Session>(service, std::move(transport), *this);
      session->owner_index = sessions.size();
      sessions.push_back(std::move(session));
      sessions.back()->start();
    }
  }
  accept();
}

void Server::State::refuse(TcpSocket socket) {
  ++service.metrics.connections_refused;
  service.metrics.count_error(Errc::overloaded);
  // A fresh socket's send buffer takes this; a TLS client would not understand it.
  if (!tls)
    (void)::send(socket.native_handle(), kRefusal.data(), kRefusal.size(),
                 MSG_NOSIGNAL | MSG_DONTWAIT);
  error_code ignored;
  socket.shutdown(asio::socket_base::shutdown_send, ignored);
}

void Server::State::tick() {
  timer.expires_after(std::chrono::duration_cast<std::chrono::steady_clock::duration>(
      tick_period(service.config.http)));
  timer.async_wait([self = shared_from_this()](const error_code& error) {
    if (error || self->is_shut) return;
    const Tick now = self->service.clock.now();
    for (std::size_t i = self->sessions.size(); i-- > 0;)
      if (i < self->sessions.size()) self->sessions[i]->on_tick(now);
    if (std::exchange(self->is_paused, false)) self->accept();
    self->tick();
  });
}

void Server::State::retire(Session& session) {
  const std::size_t index = session.owner_index;
  retired.push_back(std::move(sessions[index]));
  sessions[index] = std::move(sessions.back());
  sessions.pop_back();
  if (index < sessions.size()) sessions[index]->owner_index = index;
  --service.metrics.connections_open;
  if (retired.size() == 1) asio::post(io, [self = shared_from_this()] { self->clean(); });
}

void Server::State::clean() {
  retired.clear();
  check_empty();
}

void Server::State::check_empty() {
  if (!on_empty || !sessions.empty() || is_shut) return;
  const std::function<void()> call = std::exchange(on_empty, nullptr);
  call();
}

void Server::State::shut() {
  is_shut = true;
  is_accepting = false;
  on_empty = nullptr;
  error_code ignored;
  acceptor.close(ignored);
  timer.cancel();
  for (std::size_t i = sessions.size(); i-- > 0;) sessions[i]->close();
}

}  // namespace sluice::gw
