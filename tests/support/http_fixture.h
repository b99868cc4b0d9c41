// One gateway's HTTP side in memory: sessions over scripted wires, a fake decision loop, a manual
// clock. Nothing runs by itself: turn() carries out what is due until nothing is.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/http/completion_handler.h"
#include "gateway/http/service.h"
#include "gateway/http/session.h"
#include "gateway/http/transport.h"
#include "tests/support/canned_config.h"
#include "tests/support/fake_decision_loop.h"

namespace sluice::test {

// The client's end of a connection and the script of its faults.
struct Wire {
  std::string input;            // not read yet
  bool is_input_ended = false;  // half-close after `input`
  std::size_t read_bytes_max = 1 << 20;
  std::size_t write_bytes_max = 1 << 20;
  bool is_write_blocked = false;  // the client does not read
  int fail_at = -1;               // the operation of this number fails
  int num_operations = 0;

  std::string output;    // what the client received
  bool is_shut = false;  // the server sent its end
  bool is_closed = false;
};

class WireTransport final : public gw::Transport {
 public:
  explicit WireTransport(Wire& wire) : wire_(wire) {}

  void open(gw::TransportEvents& events) override {
    events_ = &events;
    is_opening_ = true;
  }
  void read(std::span<char> into) override {
    ASSERT_TRUE(into_.empty() && !into.empty());
    into_ = into;
  }
  void write(std::string_view bytes) override {
    ASSERT_TRUE(from_.empty() && !bytes.empty());
    from_ = bytes;
  }
  void shutdown_send() override { wire_.is_shut = true; }
  void close() override { wire_.is_closed = true; }
  bool is_quiet() const override { return !is_opening_ && into_.empty() && from_.empty(); }

  // Completes one operation that can complete. False: none can.
  bool step() {
    if (std::exchange(is_opening_, false)) {
      events_->on_open(next());
      return true;
    }
    if (!from_.empty() && (wire_.is_closed || !wire_.is_write_blocked)) {
      const gw::IoResult result = next();
      const std::string_view bytes = std::exchange(from_, {}).substr(0, wire_.write_bytes_max);
      if (result == gw::IoResult::ok) wire_.output.append(bytes);
      events_->on_written(result, result == gw::IoResult::ok ? bytes.size() : 0);
      return true;
    }
    const bool can_read = !wire_.input.empty() || wire_.is_input_ended || wire_.is_closed;
    if (into_.empty() || !can_read) return false;
    const std::span<char> into = std::exchange(into_, {});
    gw::IoResult result = next();
    if (result == gw::IoResult::ok && wire_.input.empty()) result = gw::IoResult::end_of_stream;
    std::size_t bytes = 0;
    if (result == gw::IoResult::ok) {
      bytes = std::min({into.size(), wire_.input.size(), wire_.read_bytes_max});
      std::copy_n(wire_.input.begin(), bytes, into.begin());
      wire_.input.erase(0, bytes);
    }
    events_->on_read(result, bytes);
    return true;
  }

 private:
  gw::IoResult next() {
    if (wire_.is_closed) return gw::IoResult::failed;
    return wire_.num_operations++ == wire_.fail_at ? gw::IoResult::failed : gw::IoResult::ok;
  }

  Wire& wire_;
  gw::TransportEvents* events_ = nullptr;
  bool is_opening_ = false;
  std::span<char> into_;
  std::string_view from_;
};

inline const std::string kCannedTokenizer = SLUICE_SOURCE_DIR "/models/canned/tokenizer.model";

inline gw::ServedModel load_canned(const cfg::Model& config) {
  tok::Tokenizer tokenizer = std::move(tok::Tokenizer::load(kCannedTokenizer).value());
  tok::ChatTemplate chat_template =
      tok::ChatTemplate::make(tok::TemplateFamily::plain, tokenizer).value();
  return {config, std::move(tokenizer), std::move(chat_template)};
}

class HttpFixture : public gw::SessionOwner {
 public:
  struct Connection {
    Wire wire;
    WireTransport* transport = nullptr;
    std::unique_ptr<gw::Session> session;  // empty once retired
  };

  explicit HttpFixture(cfg::Config config = canned_config())
      : service(config, load_models(config), loop, clock, 7, 1'700'000'000) {}

  Connection& connect() {
    connections.push_back(std::make_unique<Connection>());
    Connection& connection = *connections.back();
    auto transport = std::make_unique<WireTransport>(connection.wire);
    connection.transport = transport.get();
    connection.session = std::make_unique<gw::Session>(service, std::move(transport), *this);
    connection.session->owner_index = connections.size() - 1;
    connection.session->start();
    return connection;
  }

  void retire(gw::Session& session) override { retired.push_back(session.owner_index); }

  // Completes I/O until nothing more can happen by itself.
  void turn() {
    bool is_busy = true;
    while (is_busy) {
      is_busy = false;
      for (const auto& connection : connections)
        while (connection->session && connection->transport->step()) {
          is_busy = true;
          clean();
        }
    }
    clean();
  }

  // ... and hands out tokens one by one until every request has ended.
  void turn_all() {
    turn();
    while (loop.step()) turn();
  }

  // One connection that sends `request` and, unless it stays open, nothing else.
  std::string exchange(std::string_view request) {
    Connection& connection = connect();
    connection.wire.input = request;
    turn_all();
    return connection.wire.output;
  }

  void advance(Duration by) {
    clock.advance(by);
    for (const auto& connection : connections)
      if (connection->session) connection->session->on_tick(clock.now());
    turn();
  }

  ManualClock clock;
  FakeDecisionLoop loop;
  gw::Service service;
  std::vector<std::unique_ptr<Connection>> connections;
  std::vector<std::size_t> retired;

 private:
  static std::vector<gw::ServedModel> load_models(const cfg::Config& config) {
    std::vector<gw::ServedModel> models;
    for (const cfg::Model& model : config.models) models.push_back(load_canned(model));
    return models;
  }
  void clean() {
    for (const std::size_t index : std::exchange(retired, {})) connections[index]->session.reset();
  }
};

inline std::string get(std::string_view path, std::string_view headers = {}) {
  return std::string("GET ")
      .append(path)
      .append(" HTTP/1.1\r\nHost: x\r\n")
      .append(headers)
      .append("\r\n");
}

inline std::string post(std::string_view path, std::string_view body,
                        std::string_view headers = {}) {
  return std::string("POST ")
      .append(path)
      .append(" HTTP/1.1\r\nHost: x\r\n")
      .append("Content-Type: application/json\r\nContent-Length: ")
      .append(std::to_string(body.size()))
      .append("\r\n")
      .append(headers)
      .append("\r\n")
      .append(body);
}

inline int status_of(std::string_view response) {
  return response.size() < 12 ? 0 : std::stoi(std::string(response.substr(9, 3)));
}

inline std::string header_of(std::string_view response, std::string_view name) {
  const std::string line = std::string("\r\n").append(name).append(": ");
  const std::size_t at = response.find(line);
  if (at == std::string_view::npos || at > response.find("\r\n\r\n")) return {};
  const std::size_t begin = at + line.size();
  return std::string(response.substr(begin, response.find("\r\n", begin) - begin));
}

inline std::string body_of(std::string_view response) {
  const std::size_t end = response.find("\r\n\r\n");
  return end == std::string_view::npos ? std::string() : std::string(response.substr(end + 4));
}

// The payload of a chunked body; fails the test when the framing is broken or unfinished.
inline std::string unchunk(std::string_view body, bool expect_end = true) {
  std::string text;
  while (!body.empty()) {
    const std::size_t line = body.find("\r\n");
    if (line == std::string_view::npos) break;
    const std::size_t size = std::stoul(std::string(body.substr(0, line)), nullptr, 16);
    if (body.size() < line + 2 + size + 2) break;
    text.append(body.substr(line + 2, size));
    EXPECT_EQ(body.substr(line + 2 + size, 2), "\r\n");
    body.remove_prefix(line + 2 + size + 2);
    if (size == 0) {
      EXPECT_TRUE(expect_end && body.empty());
      return text;
    }
  }
  EXPECT_FALSE(expect_end) << "the chunked body has no end";
  return text;
}

}  // namespace sluice::test
