// Attacks on the HTTP surface through a real socket: each gets its status, and the server lives.
#include <gtest/gtest.h>

#include "tests/support/loopback_server.h"

namespace sluice::gw {
namespace {

using namespace std::chrono_literals;
using test::get;
using test::LoopbackServer;
using test::post;
using test::status_of;

cfg::Config quick() {
  cfg::Config config = test::canned_config();
  config.http.header_timeout = 100ms;
  config.http.body_timeout = 100ms;
  config.http.write_timeout = 300ms;
  return config;
}

void expect_alive(const LoopbackServer& server) {
  EXPECT_EQ(status_of(server.exchange(get("/live", "Connection: close\r\n"))), 200);
}

TEST(HttpAttacks, AmbiguousFramingIsRefusedAndClosed) {
  LoopbackServer server;
  const std::string start =
      "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
  const std::string smuggled = get("/v1/models");
  const std::string cases[] = {
      start + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
      start + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + smuggled,
      start + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + smuggled,
      start + "Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + smuggled,
      start + "Content-Length: +0\r\n\r\n" + smuggled,
      start + "Content-Length: 0 0\r\n\r\n" + smuggled,
      start + "Transfer-Encoding: chunked\r\n\r\n2;x=\"\n\"\r\n{}\r\n0\r\n\r\n" + smuggled,
      start + "Transfer-Encoding: chunked\r\n\r\n2;\nxx\r\n{}\r\n0\r\n\r\n" + smuggled,
      start + "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 9\r\n\r\n" + smuggled,
      start + "X: a\r\n b\r\nContent-Length: 0\r\n\r\n" + smuggled,
      start + "X: a\rContent-Length: 44\r\n\r\n" + smuggled,
      start + "X: a\nContent-Length: 44\r\n\r\n" + smuggled,
      std::string("GET /v1/models\0 HTTP/1.1\r\nHost: a\r\n\r\n", 37),
      "GET /v1/models HTTP/1.1\r\n\r\n",
  };
  for (const std::string& text : cases) {
    const std::string response = server.exchange(text);
    EXPECT_EQ(status_of(response), 400) << text;
    EXPECT_EQ(response.find("HTTP/1.1 2"), std::string::npos) << "nothing smuggled: " << text;
  }
  expect_alive(server);
}

TEST(HttpAttacks, FloodsOfHeaders) {
  LoopbackServer server;
  EXPECT_EQ(status_of(server.exchange(
                "GET /live HTTP/1.1\r\nHost: a\r\nX: " + std::string(1 << 20, 'x') + "\r\n\r\n")),
            431);
  std::string many = "GET /live HTTP/1.1\r\nHost: a\r\n";
  for (int i = 0; i < 500; ++i) many.append("A: b\r\n");
  EXPECT_EQ(status_of(server.exchange(many + "\r\n")), 431);
  EXPECT_EQ(status_of(server.exchange("GET /" + std::string(1 << 20, 'x'))), 431);
  expect_alive(server);
}

TEST(HttpAttacks, HugeBodiesAreRefusedWhileTheyAreSent) {
  LoopbackServer server;
  const std::string start =
      "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
  EXPECT_EQ(status_of(server.exchange(start + "Content-Length: 18446744073709551615\r\n\r\n")),
            413);
  std::string chunked = start + "Transfer-Encoding: chunked\r\n\r\n";
  chunked.append("fffff\r\n").append(0xfffff, 'x').append("\r\nfffffff\r\n");
  EXPECT_EQ(status_of(server.exchange(chunked)), 413);
  expect_alive(server);
}

TEST(HttpAttacks, SlowHeadsAndBodiesRunIntoTheirDeadline) {
  LoopbackServer server(quick());
  EXPECT_EQ(status_of(server.exchange("GET /live HT")), 408);
  EXPECT_EQ(status_of(server.exchange(post("/v1/completions", "{}").substr(0, 94))), 408);
  expect_alive(server);
}

TEST(HttpAttacks, ASlowReaderIsCutOffAndItsRequestCancelled) {
  LoopbackServer server(quick());
  server.on_loop([&] {
    server.service.config.models[0].context_tokens = 1 << 20;
    server.loop.facts.context_tokens = 1 << 20;
    server.loop.script = [](const GenerationSpec&, std::uint32_t) {
      std::vector<OutputToken> tokens(200'000, {300, 0, FinishReason::none});
      tokens.back().finish = FinishReason::length;
      return tokens;
    };
  });
  const UniqueFd fd = server.connect();
  const int small = 4096;
  ASSERT_EQ(::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
  LoopbackServer::send(fd,
                       post("/v1/completions",
                            R"({"model":"canned","prompt":[5],"stream":true,"max_tokens":1000})"));
  // Nothing is read: the server gives up on the write, which the next line waits for.
  bool is_cancelled = false;
  for (int i = 0; i < 400 && !is_cancelled; ++i) {
    expect_alive(server);
    server.on_loop(
        [&] { is_cancelled = !server.loop.requests.empty() && server.loop.num_live() == 0; });
    if (!is_cancelled) ::poll(nullptr, 0, 10);
  }
  ASSERT_TRUE(is_cancelled);
  server.on_loop([&] {
    EXPECT_EQ(server.loop.last().cancelled, CancelCause::client_gone);
    EXPECT_LT(server.loop.last().choices[0].accepted, 200'000u) << "unsent tokens are not billed";
  });
}

TEST(HttpAttacks, PathTricksFindNothing) {
  LoopbackServer server;
  for (const char* path :
       {"/v1/../v1/models", "//v1/models", "/v1/models%2f", "/%76%31/models", "/v1/models/%00",
        "/v1/models/%2e%2e%2fx", "/v1;x/models", "/v1\\models"})
    EXPECT_EQ(status_of(server.exchange(get(path, "Connection: close\r\n"))), 404) << path;
  expect_alive(server);
}

TEST(HttpAttacks, AbsoluteTargetsAndUpgradesChangeNothing) {
  LoopbackServer server;
  EXPECT_EQ(status_of(server.exchange("GET http://other.example/live HTTP/1.1\r\nHost: x\r\n"
                                      "Connection: close\r\n\r\n")),
            200);
  EXPECT_EQ(status_of(server.exchange("GET /live HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                                      "Connection: upgrade, close\r\n"
                                      "Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n")),
            200);
  EXPECT_EQ(status_of(server.exchange("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")), 400);
}

TEST(HttpAttacks, OtherProtocolsGetAnEnd) {
  LoopbackServer server(quick());
  std::string tls_hello = "\x16\x03\x01\x02\x00\x01";
  tls_hello.append(512, '\x11');
  server.exchange(tls_hello);  // whatever it reads, the connection ends
  server.exchange(std::string(100'000, '\0'));
  server.exchange("\r\n\r\n\r\n");
  expect_alive(server);
}

TEST(HttpAttacks, PipelinedFloodsBehindAStreamAreBounded) {
  LoopbackServer server;
  const UniqueFd fd = server.connect();
  std::string flood = post("/v1/completions", R"({"model":"canned","prompt":"x","stream":true})");
  for (int i = 0; i < 200; ++i) flood.append(get("/live"));
  flood.append(get("/live", "Connection: close\r\n"));
  LoopbackServer::send(fd, flood);
  const std::string responses = LoopbackServer::receive(fd);
  std::size_t count = 0;
  for (std::size_t at = 0; (at = responses.find("HTTP/1.1 200", at)) != std::string::npos; ++at)
    ++count;
  EXPECT_EQ(count, 202u);
}

}  // namespace
}  // namespace sluice::gw
