// Server: listens, accepts up to a limit, owns the sessions and turns their clock. At the limit a
// client gets a 503 and is closed. begin_drain() stops accepting and closes idle connections; the
// rest close after their answers.
// Event loop only.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "gateway/http/service.h"

namespace boost::asio {
class io_context;
}

namespace sluice::gw {

class Server {
 public:
  Server(boost::asio::io_context& io, Service& service);
  ~Server();  // closes everything; handlers still queued in `io` must not run afterwards

  // Binds and starts to accept. Returns the port. Errors: bad_config (address), io_error (in use).
  Result<std::uint16_t> listen(const std::string& address, std::uint16_t port);
  // Certificate and key for connections accepted from now on; those that are open keep theirs. On
  // an error the former ones stay. A listener without TLS stays without it. Errors: bad_config.
  Result<void> reload_certificate(const cfg::Listen& listen);
  // `on_empty` runs once the last connection is gone.
  void begin_drain(std::function<void()> on_empty);
  void close_all();
  // After the keys have changed: ends the requests whose key is gone.
  void recheck_keys();
  void recheck_keys(std::vector<TenantId> of);  // of these tenants alone
  std::size_t num_sessions() const;

 private:
  struct State;
  std::shared_ptr<State> state_;  // shared with handlers in flight, which outlive neither `io`
};

}  // namespace sluice::gw
