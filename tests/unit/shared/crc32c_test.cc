// CRC-32C against published vectors, and the instruction against the table at every length.
#include "shared/crc32c.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string_view>
#include <vector>

namespace sluice {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

TEST(Crc32c, MatchesTheVectorsOfRfc3720) {
  const std::vector<std::byte> zeros(32, std::byte{0});
  const std::vector<std::byte> ones(32, std::byte{0xff});
  EXPECT_EQ(crc32c(0, zeros), 0x8a9136aau);
  EXPECT_EQ(crc32c(0, ones), 0x62a8ab43u);
  EXPECT_EQ(crc32c(0, bytes_of("123456789")), 0xe3069283u);
  EXPECT_EQ(crc32c_table(0, bytes_of("123456789")), 0xe3069283u);
}

TEST(Crc32c, TheInstructionEqualsTheTableAtEveryLengthAndAlignment) {
  std::mt19937_64 rng(7);
  std::vector<std::byte> data(300);
  for (std::byte& b : data) b = static_cast<std::byte>(rng());
  for (std::size_t start = 0; start < 9; ++start)
    for (std::size_t size = 0; start + size <= data.size(); ++size) {
      const auto part = std::span(data).subspan(start, size);
      ASSERT_EQ(crc32c(0x1234, part), crc32c_table(0x1234, part)) << start << ' ' << size;
    }
}

TEST(Crc32c, AChainOfCallsIsOneChecksum) {
  const auto whole = bytes_of("positions only grow");
  for (std::size_t cut = 0; cut <= whole.size(); ++cut)
    EXPECT_EQ(crc32c(crc32c(0, whole.first(cut)), whole.subspan(cut)), crc32c(0, whole));
}

TEST(Crc32c, ARecordIsItsTwentyHeaderBytesThenItsPayload) {
  const std::uint64_t word0 = 0x0102030405060708;
  const std::uint64_t word1 = 0x1112131415161718;
  const std::uint32_t word2 = 0x21222324;
  for (std::size_t size = 0; size < 40; ++size) {
    std::vector<std::byte> flat(20 + size, std::byte{0x5a});
    std::memcpy(flat.data(), &word0, 8);
    std::memcpy(flat.data() + 8, &word1, 8);
    std::memcpy(flat.data() + 16, &word2, 4);
    EXPECT_EQ(crc32c_record(word0, word1, word2, std::span(flat).subspan(20)),
              crc32c_table(0, flat));
  }
}

}  // namespace
}  // namespace sluice
