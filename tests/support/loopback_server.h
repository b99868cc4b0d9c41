// A gateway's HTTP side behind a real listener on a port of the system's choice, on its own thread,
// and a blocking client for raw bytes. The fake decision loop steps whenever the loop is idle.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <future>
#include <string>
#include <string_view>
#include <thread>

#include "gateway/http/server.h"
#include "shared/unique_fd.h"
#include "tests/support/http_fixture.h"

namespace sluice::test {

class LoopbackServer {
 public:
  explicit LoopbackServer(cfg::Config config = canned_config())
      : service(config, load(config), loop, clock, 7, 1'700'000'000), server(io, service) {
    const Result<std::uint16_t> bound = server.listen("127.0.0.1", 0);
    EXPECT_TRUE(bound) << (bound ? "" : bound.error().detail);
    if (bound) port = *bound;
    thread_ = std::thread([this] { run(); });
  }
  ~LoopbackServer() {
    boost::asio::post(io, [this] { is_stopping_ = true; });
    thread_.join();
    server.close_all();
    io.restart();
    io.poll();  // what was in flight completes before the sessions go
  }

  // Runs `call` on the loop's thread and waits for it.
  void on_loop(const std::function<void()>& call) {
    std::promise<void> done;
    boost::asio::post(io, [&] {
      call();
      done.set_value();
    });
    done.get_future().wait();
  }

  UniqueFd connect() const {
    UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    const timeval limit{.tv_sec = 20, .tv_usec = 0};  // a hang fails instead of blocking
    EXPECT_EQ(::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
    return fd;
  }

  static void send(const UniqueFd& fd, std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return;  // the server may have closed: what it answered is what counts
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
  }

  // Until `end` was seen, or the end of the stream.
  static std::string receive(const UniqueFd& fd, std::string_view end = {}) {
    std::string text;
    char buffer[16384];
    while (end.empty() || text.find(end) == std::string::npos) {
      const ssize_t got = ::recv(fd.get(), buffer, sizeof buffer, 0);
      if (got <= 0) break;
      text.append(buffer, static_cast<std::size_t>(got));
    }
    return text;
  }

  // One request that ends its connection.
  std::string exchange(std::string_view bytes) const {
    const UniqueFd fd = connect();
    send(fd, bytes);
    return receive(fd);
  }

  boost::asio::io_context io{1};
  SystemClock clock;
  FakeDecisionLoop loop;
  gw::Service service;
  gw::Server server;
  std::uint16_t port = 0;

 private:
  static std::vector<gw::ServedModel> load(const cfg::Config& config) {
    std::vector<gw::ServedModel> models;
    for (const cfg::Model& model : config.models) models.push_back(load_canned(model));
    return models;
  }
  void run() {
    while (!is_stopping_) {
      io.run_one();
      while (io.poll_one() > 0) {
      }
      while (loop.step()) io.poll();
    }
  }

  bool is_stopping_ = false;
  std::thread thread_;
};

}  // namespace sluice::test
