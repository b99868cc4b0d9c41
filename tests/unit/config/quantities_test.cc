// Durations and sizes with units: what is read, what is refused, and that formatting loses nothing.
#include "config/quantities.h"

#include <gtest/gtest.h>

namespace sluice::cfg {
namespace {

using namespace std::chrono_literals;

TEST(Quantities, ReadsDurationsWithAUnit) {
  EXPECT_EQ(parse_duration("250ms"), 250ms);
  EXPECT_EQ(parse_duration("10s"), 10s);
  EXPECT_EQ(parse_duration("5m"), 5min);
  EXPECT_EQ(parse_duration("2h"), 2h);
  EXPECT_EQ(parse_duration("0s"), 0ms);
}

TEST(Quantities, RefusesDurationsThatSayTooLittleOrTooMuch) {
  for (const char* text : {"", "10", "s", "1.5s", "-1s", "+1s", "1 s", "1S", "010s", "1s ", "0x1s",
                           "99999999999999999999s", "9223372036854775807h"})
    EXPECT_FALSE(parse_duration(text)) << text;
}

TEST(Quantities, ReadsSizes) {
  EXPECT_EQ(parse_size("8MiB"), 8u << 20);
  EXPECT_EQ(parse_size("64KiB"), 64u << 10);
  EXPECT_EQ(parse_size("2GiB"), 2ull << 30);
  EXPECT_EQ(parse_size("512"), 512u);
}

TEST(Quantities, RefusesUnknownUnitsAndOverflow) {
  for (const char* text : {"", "8MB", "8 MiB", "MiB", "1.5KiB", "-1", "08KiB", "17179869184GiB"})
    EXPECT_FALSE(parse_size(text)) << text;
}

TEST(Quantities, FormattingLosesNothing) {
  for (std::uint64_t n : {0ull, 1ull, 999ull, 1000ull, 1023ull, 1024ull, 60'000ull, 3'600'000ull,
                          90'000ull, 1ull << 20, (1ull << 30) + 1, 5ull << 30}) {
    EXPECT_EQ(parse_size(format_size(n)), n);
    const auto duration = std::chrono::milliseconds(static_cast<std::int64_t>(n));
    EXPECT_EQ(parse_duration(format_duration(duration)), duration);
  }
  EXPECT_EQ(format_duration(75s), "75s");
  EXPECT_EQ(format_size(8u << 20), "8MiB");
}

}  // namespace
}  // namespace sluice::cfg
