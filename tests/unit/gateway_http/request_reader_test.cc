// The request reader: what two parties could read differently is refused; everything else reads the
// same however the bytes are cut.
#include "gateway/http/request_reader.h"

#include <gtest/gtest.h>

namespace sluice::gw {
namespace {

struct Outcome {
  ReadState state = ReadState::need_more;
  Errc code{};
  std::string path, body;
  std::size_t unread = 0;
};

// Feeds `text` in pieces of `piece` bytes, as a session would.
Outcome read(std::string_view text, std::size_t piece = 1 << 20, RequestLimits limits = {}) {
  RequestReader reader(limits);
  Outcome outcome;
  std::string buffer;
  std::size_t sent = 0;
  while (true) {
    const RequestReader::Step step = reader.feed(buffer);
    buffer.erase(0, step.consumed);
    outcome.state = step.state;
    if (step.state == ReadState::failed) {
      outcome.code = reader.error().code;
      return outcome;
    }
    if (step.state == ReadState::complete) break;
    if (step.state == ReadState::head_done || (step.consumed > 0 && !buffer.empty())) continue;
    if (sent == text.size()) return outcome;
    const std::size_t bytes = std::min(piece, text.size() - sent);
    buffer.append(text.substr(sent, bytes));
    sent += bytes;
  }
  outcome.path = reader.head().path;
  outcome.body = reader.body();
  outcome.unread = buffer.size() + text.size() - sent;
  return outcome;
}

TEST(RequestReader, ReadsTheSameHoweverTheBytesAreCut) {
  const std::string requests[] = {
      "GET /v1/models?x=1 HTTP/1.1\r\nHost: a\r\n\r\n",
      "\r\nPOST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
      "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
      "3\r\nhel\r\n2;a=b\r\nlo\r\n0\r\nTrailer: x\r\nContent-Type: y\r\n\r\n"};
  const char* bodies[] = {"", "hello", "hello"};
  for (std::size_t i = 0; i < std::size(requests); ++i) {
    for (std::size_t piece = 1; piece <= requests[i].size(); ++piece) {
      const Outcome outcome = read(requests[i] + "GET /next", piece);
      ASSERT_EQ(outcome.state, ReadState::complete) << requests[i] << piece;
      ASSERT_EQ(outcome.body, bodies[i]) << requests[i] << piece;
      ASSERT_EQ(outcome.unread, 9u) << requests[i] << piece;
    }
  }
}

TEST(RequestReader, FindsThePathOfEveryTargetForm) {
  const auto path = [](std::string_view target) {
    return read("GET " + std::string(target) + " HTTP/1.1\r\nHost: a\r\n\r\n").path;
  };
  EXPECT_EQ(path("/v1/models"), "/v1/models");
  EXPECT_EQ(path("/v1/models?a=/b#"), "") << "a fragment is refused";
  EXPECT_EQ(path("/a/../v1//x?q"), "/a/../v1//x") << "nothing is normalized";
  EXPECT_EQ(path("http://host:80/v1/models"), "/v1/models");
  EXPECT_EQ(path("HTTPS://host"), "/");
  EXPECT_EQ(path("http://host?x"), "/");
  EXPECT_EQ(path("*"), "*");
  EXPECT_EQ(path("ftp://host/x"), "");
  EXPECT_EQ(path("host:80"), "");
  EXPECT_EQ(path("http:///x"), "");
  EXPECT_EQ(path("/\xc3\xa9"), "");
}

TEST(RequestReader, RefusesWhatIsAmbiguousOrMalformed) {
  const std::string start = "POST /x HTTP/1.1\r\nHost: a\r\n";
  const std::string chunked = start + "Transfer-Encoding: chunked\r\n\r\n";
  const std::string cases[] = {
      start + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      start + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
      start + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
      start + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
      start + "Content-Length: 5, 5\r\n\r\nhello",
      start + "Content-Length: 5,6\r\n\r\nhello",
      start + "Content-Length: +5\r\n\r\nhello",
      start + "Content-Length: -5\r\n\r\nhello",
      start + "Content-Length: 0x5\r\n\r\nhello",
      start + "Content-Length: 5 5\r\n\r\nhello",
      start + "Content-Length: 99999999999999999999\r\n\r\n",
      start + "Content-Length:\r\n\r\n",
      start + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
      start + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
      start + "Transfer-Encoding: identity\r\n\r\n",
      start + "Transfer-Encoding: gzip\r\n\r\n",
      start + "Transfer-Encoding: \r\n\r\n",
      start + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      "POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      "GET /x HTTP/1.1\r\n\r\n",
      "GET /x HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
      "GET /x HTTP/1.1\r\nHost: a\r\n folded: x\r\n\r\n",
      "GET /x HTTP/1.1\r\nHost: a\r\nX: 1\r\n\t2\r\n\r\n",
      "GET /x HTTP/1.1\r\n Host: a\r\n\r\n",
      "GET /x HTTP/1.1\r\nHost : a\r\n\r\n",
      "GET /x HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n",
      "GET /x HTTP/1.1\r\nHost: a\r\nnocolon\r\n\r\n",
      "GET /x HTTP/1.1\nHost: a\n\n",
      "GET /x HTTP/1.1\r\nHost: a\n\r\n",
      "GET /x HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
      std::string("GET /x HTTP/1.1\r\nHost: a\0b\r\n\r\n", 30),
      std::string("GET /x\0y HTTP/1.1\r\nHost: a\r\n\r\n", 30),
      "GET /x HTTP/1.1\r\nHost: a\x01\r\n\r\n",
      "GET /x HTTP/1.1\r\nHost: a\x7f\r\n\r\n",
      "GET  /x HTTP/1.1\r\nHost: a\r\n\r\n",
      "GET /x  HTTP/1.1\r\nHost: a\r\n\r\n",
      "GET /x y HTTP/1.1\r\nHost: a\r\n\r\n",
      "GET /x HTTP/1.1 \r\nHost: a\r\n\r\n",
      "GET /x HTTP/2.0\r\nHost: a\r\n\r\n",
      "GET /x HTTP/0.9\r\nHost: a\r\n\r\n",
      "GET /x http/1.1\r\nHost: a\r\n\r\n",
      "GET /x\r\nHost: a\r\n\r\n",
      "G@T /x HTTP/1.1\r\nHost: a\r\n\r\n",
      "\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
      "GET x HTTP/1.1\r\nHost: a\r\n\r\n",
      "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
      "GET /x HTTP/1.1\r\nHost: a\r\nAuthorization: x\r\nAuthorization: y\r\n\r\n",
      "GET /x HTTP/1.1\r\nHost: a\r\nExpect: 200-maybe\r\n\r\n",
      chunked + "5\nhello\r\n0\r\n\r\n",
      chunked + "5\rhello\r\n0\r\n\r\n",
      chunked + "+5\r\nhello\r\n0\r\n\r\n",
      chunked + "0x5\r\nhello\r\n0\r\n\r\n",
      chunked + " 5\r\nhello\r\n0\r\n\r\n",
      chunked + "5 \r\nhello\r\n0\r\n\r\n",
      chunked + "-5\r\nhello\r\n0\r\n\r\n",
      chunked + "\r\nhello\r\n0\r\n\r\n",
      chunked + "10000000000000000\r\nhello\r\n0\r\n\r\n",
      chunked + "5\r\nhelloX\r\n0\r\n\r\n",
      chunked + "5\r\nhello\n0\r\n\r\n",
      chunked + "5;a=\"b\"\r\nhello\r\n0\r\n\r\n",
      chunked + "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n",
      chunked + "5;a=b\nX: y\r\nhello\r\n0\r\n\r\n",
      chunked + "5;\r\nhello\r\n0\r\n\r\n",
      chunked + "5;a=\x01\r\nhello\r\n0\r\n\r\n",
      chunked + "5;" + std::string(5000, 'a') + "\r\nhello\r\n0\r\n\r\n",
      chunked + "0\r\nContent-Length: 5\r\n\r\n",
  };
  for (const std::string& text : cases) {
    for (const std::size_t piece : {std::size_t{1} << 20, std::size_t{1}}) {
      const Outcome outcome = read(text, piece);
      EXPECT_EQ(outcome.state, ReadState::failed) << text;
      EXPECT_EQ(outcome.code, Errc::malformed_http) << text;
    }
  }
}

TEST(RequestReader, RefusesAChunkLineThatEndsInABareLineFeedAtOnce) {
  const std::string head = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (const std::string body : {"5\nhello\n0\n\n", "5;a=b\nhello", "5\r\nhello\n0\r\n\r\n"}) {
    const Outcome outcome = read(head + body);
    EXPECT_EQ(outcome.state, ReadState::failed) << body;
    EXPECT_EQ(outcome.code, Errc::malformed_http) << body;
  }
}

TEST(RequestReader, BoundsHeadFieldsAndBody) {
  const RequestLimits limits{.header_bytes_max = 4096, .body_bytes_max = 100};
  const std::string start = "POST /x HTTP/1.1\r\nHost: a\r\n";
  EXPECT_EQ(read(start + "X: " + std::string(5000, 'x') + "\r\n\r\n", 1 << 20, limits).code,
            Errc::headers_too_large);
  EXPECT_EQ(read(start + "X: " + std::string(5000, 'x'), 100, limits).code, Errc::headers_too_large)
      << "also while its end is missing";
  EXPECT_EQ(
      read("GET /" + std::string(5000, 'x') + " HTTP/1.1\r\nHost: a\r\n\r\n", 77, limits).code,
      Errc::headers_too_large);
  std::string many = start;
  for (int i = 0; i < 100; ++i) many.append("a:\r\n");
  EXPECT_EQ(read(many + "\r\n", 1 << 20, limits).code, Errc::headers_too_large);
  EXPECT_EQ(read(start + "Content-Length: 101\r\n\r\n", 1 << 20, limits).code,
            Errc::request_too_large)
      << "before any byte of it";
  EXPECT_EQ(read(start + "Content-Length: 100\r\n\r\n" + std::string(100, 'x'), 7, limits).state,
            ReadState::complete);
  const std::string chunk = "32\r\n" + std::string(50, 'x') + "\r\n";
  const std::string chunked = start + "Transfer-Encoding: chunked\r\n\r\n";
  EXPECT_EQ(read(chunked + chunk + chunk + "0\r\n\r\n", 13, limits).state, ReadState::complete);
  EXPECT_EQ(read(chunked + chunk + chunk + "1\r\nx\r\n0\r\n\r\n", 13, limits).code,
            Errc::request_too_large);
  EXPECT_EQ(read(chunked + "ffffffffffffffff\r\n", 13, limits).code, Errc::request_too_large);
}

TEST(RequestReader, KeepsTheHeadersInUse) {
  RequestReader reader({});
  const std::string text =
      "POST /x HTTP/1.1\r\nhOST: a\r\nAuthorization: Bearer k\r\nX-Request-Id: r1\r\n"
      "Traceparent: t\r\nX-Sluice-Deadline-Ms: 5\r\nX-Sluice-Priority: 2\r\nOrigin: o\r\n"
      "Content-Type: application/JSON ; charset=utf-8\r\nExpect: 100-Continue\r\n"
      "Connection: close\r\nContent-Length: 2\r\n\r\n";
  EXPECT_EQ(reader.feed(text).state, ReadState::head_done);
  const RequestHead& head = reader.head();
  EXPECT_EQ(head.authorization, "Bearer k");
  EXPECT_EQ(head.request_id, "r1");
  EXPECT_EQ(head.traceparent, "t");
  EXPECT_EQ(head.deadline_ms, "5");
  EXPECT_EQ(head.priority, "2");
  EXPECT_EQ(head.origin, "o");
  EXPECT_EQ(head.content_type, MediaType::json);
  EXPECT_TRUE(head.expects_continue && head.has_body && head.is_http11);
  EXPECT_FALSE(head.keep_alive);
  EXPECT_EQ(reader.feed("{}").state, ReadState::complete);
  reader.reset();
  EXPECT_EQ(reader.feed("GET / HTTP/1.0\r\n\r\n").state, ReadState::complete);
  EXPECT_TRUE(reader.head().authorization.empty() && reader.body().empty());
  EXPECT_FALSE(reader.head().keep_alive || reader.head().is_http11);
}

}  // namespace
}  // namespace sluice::gw
