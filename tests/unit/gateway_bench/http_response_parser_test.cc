// HttpResponseParser: framings, bounds and hostile heads, each whole and in random pieces.
#include "gateway/bench/http_response_parser.h"

#include <gtest/gtest.h>

#include <array>

#include "tests/unit/gateway_bench/split_feeder.h"

namespace sluice::bench {
namespace {

struct Parsed {
  HttpParse end = HttpParse::more;
  std::string body;
  std::size_t used = 0;
  int status = 0;
  bool keep_alive = false;
  bool operator==(const Parsed&) const = default;
};

Parsed parse(std::string_view text, std::uint64_t seed, std::size_t piece_max) {
  HttpResponseParser parser;
  Parsed parsed;
  feed_in_pieces(text, seed, piece_max, [&](std::string_view piece) {
    while (parsed.end == HttpParse::more || parsed.end == HttpParse::body) {
      const HttpStep step = parser.next(piece);
      parsed.end = step.parse;
      parsed.used += step.consumed;
      parsed.body += step.body;
      piece.remove_prefix(step.consumed);
      if (step.parse == HttpParse::more) return;
    }
  });
  if (parsed.end == HttpParse::error) parsed.used = 0;  // how far it got depends on the pieces
  parsed.status = parser.status();
  parsed.keep_alive = parser.keep_alive();
  return parsed;
}

struct Row {
  const char* name;
  std::string text;
  HttpParse end;
  std::string body;
  int status;
  bool keep_alive = true;
};

TEST(HttpResponseParser, FramesBodiesAndRefusesWhatIsNotHttp) {
  const std::string ok = "HTTP/1.1 200 OK\r\n";
  const std::array rows{
      Row{"counted", ok + "Content-Length: 3\r\n\r\nabc", HttpParse::done, "abc", 200},
      Row{"empty", ok + "content-length: 0\r\n\r\n", HttpParse::done, "", 200},
      Row{"no content", "HTTP/1.1 204 No Content\r\n\r\n", HttpParse::done, "", 204},
      Row{"no reason", "HTTP/1.1 503\r\nContent-Length: 1\r\n\r\nx", HttpParse::done, "x", 503},
      Row{"close", ok + "Connection: close\r\nContent-Length: 1\r\n\r\nx", HttpParse::done, "x",
          200, false},
      Row{"HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", HttpParse::done, "x", 200,
          false},
      Row{"until close", ok + "\r\nabc", HttpParse::more, "abc", 200},
      Row{"chunked",
          ok + "Transfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
          HttpParse::done, "abc0123456789", 200},
      Row{"trailer", ok + "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\n\r\n",
          HttpParse::done, "a", 200},
      Row{"after 100", "HTTP/1.1 100 Continue\r\n\r\n" + ok + "Content-Length: 1\r\n\r\nx",
          HttpParse::done, "x", 200},
      Row{"two framings", ok + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
          HttpParse::error, "", 200},
      Row{"two lengths", ok + "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", HttpParse::error,
          "", 200},
      Row{"signed length", ok + "Content-Length: +1\r\n\r\n", HttpParse::error, "", 200},
      Row{"huge length", ok + "Content-Length: 99999999999999999999\r\n\r\n", HttpParse::error, "",
          200},
      Row{"bad chunk size", ok + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n", HttpParse::error, "",
          200},
      Row{"negative chunk", ok + "Transfer-Encoding: chunked\r\n\r\n-1\r\n", HttpParse::error, "",
          200},
      Row{"bare LF in chunks", ok + "Transfer-Encoding: chunked\r\n\r\n1\na", HttpParse::error, "",
          200},
      Row{"chunk without its end", ok + "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
          HttpParse::error, "a", 200},
      Row{"unknown coding", ok + "Transfer-Encoding: gzip\r\n\r\n", HttpParse::error, "", 200},
      Row{"not HTTP", "SSH-2.0-OpenSSH_9.2\r\n\r\n", HttpParse::error, "", 0},
      Row{"header without a colon", ok + "nonsense\r\n\r\n", HttpParse::error, "", 200},
  };
  for (const Row& row : rows) {
    const Parsed whole = parse(row.text, 0, row.text.size());
    EXPECT_EQ(whole.end, row.end) << row.name;
    EXPECT_EQ(whole.body, row.body) << row.name;
    EXPECT_EQ(whole.status, row.status) << row.name;
    if (row.end == HttpParse::done) {
      EXPECT_EQ(whole.keep_alive, row.keep_alive) << row.name;
      EXPECT_EQ(whole.used, row.text.size()) << row.name;
    }
    for (std::uint64_t seed = 0; seed < 50; ++seed)
      ASSERT_TRUE(parse(row.text, seed, 1 + seed % 9).body == whole.body) << row.name << seed;
  }
}

TEST(HttpResponseParser, StopsAtTheEndOfItsResponse) {
  const std::string one = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
  const Parsed parsed = parse(one + "HTTP/1.1 500", 0, 1000);
  EXPECT_EQ(parsed.end, HttpParse::done);
  EXPECT_EQ(parsed.used, one.size());
}

TEST(HttpResponseParser, BoundsHeadsAndLines) {
  const std::string head = "HTTP/1.1 200 OK\r\nX: " + std::string(70'000, 'x');
  EXPECT_EQ(parse(head, 1, 5000).end, HttpParse::error);
  const std::string line =
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + std::string(5000, 'x');
  EXPECT_EQ(parse(line, 1, 100).end, HttpParse::error);
}

TEST(HttpResponseParser, ABodyWithoutLengthEndsWithTheConnection) {
  HttpResponseParser parser;
  parser.next("HTTP/1.1 200 OK\r\n\r\nabc");
  EXPECT_TRUE(parser.finish_at_close());
  parser.reset();
  parser.next("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc");
  EXPECT_FALSE(parser.finish_at_close());
}

}  // namespace
}  // namespace sluice::bench
