// The stop matcher against a naive search of the whole text: the same match, nothing sent beyond
// it, nothing held longer than needed. Method: texts over two letters, where near matches are
// common. TEST_SEED replays a run.
#include "tokenizer/stop_matcher.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "shared/random.h"

namespace sluice::tok {
namespace {

struct Outcome {
  std::string sent;
  std::optional<std::size_t> matched;
  bool operator==(const Outcome&) const = default;
};

// The definition: the match that ends first; of those the longest; of equal ones the first listed.
Outcome naive(const std::string& text, const std::vector<std::string>& stops) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    std::optional<std::size_t> best;
    for (std::size_t s = 0; s < stops.size(); ++s)
      if (text.substr(0, end).ends_with(stops[s]) &&
          (!best || stops[s].size() > stops[*best].size()))
        best = s;
    if (best) return {text.substr(0, end - stops[*best].size()), best};
  }
  return {text, std::nullopt};
}

// How many bytes at the end of `text` some stop string could begin with.
std::size_t must_hold(const std::string& text, const std::vector<std::string>& stops) {
  std::size_t held = 0;
  for (const std::string& stop : stops)
    for (std::size_t n = 1; n < stop.size() && n <= text.size(); ++n)
      if (text.ends_with(stop.substr(0, n))) held = std::max(held, n);
  return held;
}

TEST(StopMatcher, PassesEverythingWithoutStopStrings) {
  StopMatcher matcher({"", ""});
  std::string sent;
  EXPECT_FALSE(matcher.push("abc", sent));
  EXPECT_EQ(sent, "abc");
  EXPECT_EQ(matcher.held_bytes(), 0u);
}

TEST(StopMatcher, FindsAStringAcrossPushes) {
  StopMatcher matcher({"END"});
  std::string sent;
  EXPECT_FALSE(matcher.push("text E", sent));
  EXPECT_EQ(sent, "text ");
  EXPECT_FALSE(matcher.push("N", sent));
  EXPECT_EQ(matcher.held_bytes(), 2u);
  EXPECT_TRUE(matcher.push("D more", sent));
  EXPECT_EQ(sent, "text ");
  EXPECT_EQ(matcher.matched(), 0u);
}

TEST(StopMatcher, ReleasesWhatTurnsOutHarmless) {
  StopMatcher matcher({"aab"});
  std::string sent;
  EXPECT_FALSE(matcher.push("aaa", sent));
  EXPECT_EQ(sent, "a");
  matcher.finish(sent);
  EXPECT_EQ(sent, "aaa");
}

TEST(StopMatcher, PrefersTheMatchThatEndsFirstThenTheLongest) {
  StopMatcher first({"bcd", "c"});
  std::string sent;
  EXPECT_TRUE(first.push("abcd", sent));
  EXPECT_EQ(sent, "ab");
  EXPECT_EQ(first.matched(), 1u);
  StopMatcher longest({"c", "bc"});
  sent.clear();
  EXPECT_TRUE(longest.push("abc", sent));
  EXPECT_EQ(sent, "a");
  EXPECT_EQ(longest.matched(), 1u);
}

TEST(StopMatcherDeathTest, RefusesTextAfterAMatch) {
  StopMatcher matcher({"x"});
  std::string sent;
  ASSERT_TRUE(matcher.push("x", sent));
  EXPECT_DEATH(matcher.push("y", sent), "CHECK|matched");
}

TEST(StopMatcherProperty, AgreesWithASearchOfTheWholeText) {
  const char* named = std::getenv("TEST_SEED");
  const std::uint64_t seed = named == nullptr ? 1 : std::strtoull(named, nullptr, 10);
  for (std::uint32_t run = 0; run < 20'000; ++run) {
    const RandomKey key{seed, 0, run};
    std::uint32_t draw = 0;
    const auto below = [&](std::uint64_t n) { return random_bits(key, draw++) % n; };
    const auto letters = [&](std::uint64_t size) {
      std::string text;
      while (text.size() < size) text += below(5) < 3 ? 'a' : 'b';
      return text;
    };
    std::vector<std::string> stops;
    for (std::uint64_t n = 1 + below(4); n > 0; --n) stops.push_back(letters(1 + below(7)));
    const std::string text = letters(below(40));
    const Outcome want = naive(text, stops);

    StopMatcher matcher(stops);
    Outcome got;
    bool done = false;
    for (std::size_t at = 0; at < text.size() && !done;) {
      const std::size_t size = std::min<std::size_t>(1 + below(6), text.size() - at);
      done = matcher.push(std::string_view(text).substr(at, size), got.sent);
      at += size;
      if (!done) {
        ASSERT_EQ(matcher.held_bytes(), must_hold(text.substr(0, at), stops));
        ASSERT_EQ(got.sent.size() + matcher.held_bytes(), at);
      }
    }
    if (!done) matcher.finish(got.sent);
    got.matched = matcher.matched();
    ASSERT_EQ(got, want) << "TEST_SEED=" << seed << " run " << run << " text " << text;
  }
}

}  // namespace
}  // namespace sluice::tok
