// SseParser: rules of the format one by one, then random streams in random pieces against the
// oracle.
#include "gateway/bench/sse_parser.h"

#include <gtest/gtest.h>

#include <array>

#include "tests/unit/gateway_bench/naive_sse.h"
#include "tests/unit/gateway_bench/split_feeder.h"

namespace sluice::bench {
namespace {

NamedEvents events_of(std::string_view stream, std::uint64_t seed, std::size_t piece_max) {
  SseParser parser;
  NamedEvents events;
  feed_in_pieces(stream, seed, piece_max, [&](std::string_view piece) {
    SseEvent event;
    while (parser.next(piece, event) == SseParse::event)
      events.emplace_back(event.type, event.data);
    EXPECT_TRUE(piece.empty());
  });
  return events;
}

struct Row {
  const char* name;
  std::string_view stream;
  NamedEvents events;
};

TEST(SseParser, FollowsTheFormat) {
  const std::array rows{
      Row{"one event", "data: a\n\n", {{"", "a"}}},
      Row{"no blank after the colon", "data:a\n\n", {{"", "a"}}},
      Row{"only one blank is dropped", "data:  a\n\n", {{"", " a"}}},
      Row{"two in one read", "data: a\n\ndata: b\n\n", {{"", "a"}, {"", "b"}}},
      Row{"CR and CRLF", "data: a\r\rdata: b\r\n\r\n", {{"", "a"}, {"", "b"}}},
      Row{"CR inside a line of LF", "data: a\rdata: b\n\n", {{"", "a\nb"}}},
      Row{"lines join", "data: a\ndata: b\n\n", {{"", "a\nb"}}},
      Row{"empty data is an event", "data\n\ndata:\n\n", {{"", ""}, {"", ""}}},
      Row{"comments and unknown fields", ": hi\nid: 7\nretry: 1\ndata: a\n\n", {{"", "a"}}},
      Row{"a comment alone is none", ": hi\n\n", {}},
      Row{"named event", "event: x\ndata: a\n\ndata: b\n\n", {{"x", "a"}, {"", "b"}}},
      Row{"a name without data is dropped", "event: x\n\ndata: b\n\n", {{"", "b"}}},
      Row{"byte order mark",
          "\xef\xbb\xbf"
          "data: a\n\n",
          {{"", "a"}}},
      Row{"a mark later is part of the field",
          "data: a\n\n\xef\xbb\xbf"
          "data: b\n\n",
          {{"", "a"}}},
      Row{"an unfinished event is none", "data: a\n\ndata: b\n", {{"", "a"}}},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(naive_events(row.stream), row.events) << row.name;
    for (const std::size_t piece_max : {1u, 3u, 1000u})
      EXPECT_EQ(events_of(row.stream, 1, piece_max), row.events) << row.name << piece_max;
  }
}

TEST(SseParser, EqualsTheOracleForRandomStreamsInRandomPieces) {
  constexpr std::array<std::string_view, 14> kPieces{
      "data: ", "data:", "data",  "event: x",  "\n", "\r",           "\r\n",
      "\n\n",   ":",     "id: 1", "{\"a\":1}", " ",  "\xef\xbb\xbf", "\xc3\xa9"};
  for (std::uint64_t seed = 0; seed < 3000; ++seed) {
    std::string stream;
    const std::uint64_t length = random_bits(RandomKey{seed, 1, 0}, 0) % 40;
    for (std::uint32_t i = 0; i < length; ++i)
      stream += kPieces[random_bits(RandomKey{seed, 2, i}, 0) % kPieces.size()];
    // A CR at the very end may still become CRLF: both readers then agree on the events so far.
    ASSERT_EQ(events_of(stream, seed, 1 + seed % 17), naive_events(stream)) << "seed " << seed;
  }
}

TEST(SseParser, RefusesAnEventOverItsBound) {
  SseParser parser(16);
  SseEvent event;
  std::string_view small = "data: 0123456789\n\n";
  EXPECT_EQ(parser.next(small, event), SseParse::event);
  std::string_view large = "data: 0123456789\ndata: 0123456789\n\n";
  EXPECT_EQ(parser.next(large, event), SseParse::too_large);
  EXPECT_EQ(parser.next(small, event), SseParse::too_large);
  parser.reset();
  small = "data: b\n\n";
  EXPECT_EQ(parser.next(small, event), SseParse::event);
}

}  // namespace
}  // namespace sluice::bench
