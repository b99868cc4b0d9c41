// CRC-32C by instruction and by table.
#include "shared/crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace sluice {
namespace {

constexpr std::uint32_t kPolynomial = 0x82f63b78u;  // bit-reversed 0x1edc6f41

constexpr std::array<std::uint32_t, 256> make_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    table[i] = crc;
  }
  return table;
}
constexpr std::array<std::uint32_t, 256> kTable = make_table();

// State between calls is inverted on entry and on exit, so that a chain of calls is one checksum.
std::uint32_t table_update(std::uint32_t state, const std::byte* data, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i)
    state = kTable[(state ^ std::to_integer<std::uint32_t>(data[i])) & 0xff] ^ (state >> 8);
  return state;
}

template <class Word>
std::uint32_t table_update_word(std::uint32_t state, Word word) {
  std::byte bytes[sizeof(Word)];
  std::memcpy(bytes, &word, sizeof word);
  return table_update(state, bytes, sizeof bytes);
}

#if defined(__x86_64__)

// Constant after start-up; calls before its initialisation take the table, with equal results.
const bool kHasInstruction = __builtin_cpu_supports("sse4.2") != 0;

[[gnu::target("sse4.2")]] inline std::uint32_t sse_update(std::uint32_t state,
                                                          const std::byte* data, std::size_t size) {
  std::uint64_t wide = state;
  for (; size >= 8; data += 8, size -= 8) {
    std::uint64_t word;
    std::memcpy(&word, data, sizeof word);
    wide = _mm_crc32_u64(wide, word);
  }
  auto narrow = static_cast<std::uint32_t>(wide);
  for (; size > 0; ++data, --size)
    narrow = _mm_crc32_u8(narrow, std::to_integer<std::uint8_t>(*data));
  return narrow;
}

[[gnu::target("sse4.2")]] std::uint32_t sse_crc(std::uint32_t crc,
                                                std::span<const std::byte> bytes) {
  return ~sse_update(~crc, bytes.data(), bytes.size());
}

[[gnu::target("sse4.2")]] std::uint32_t sse_record(std::uint64_t word0, std::uint64_t word1,
                                                   std::uint32_t word2,
                                                   std::span<const std::byte> payload) {
  std::uint64_t state = _mm_crc32_u64(0xffffffffu, word0);
  state = _mm_crc32_u64(state, word1);
  const std::uint32_t narrow = _mm_crc32_u32(static_cast<std::uint32_t>(state), word2);
  return ~sse_update(narrow, payload.data(), payload.size());
}

#else

constexpr bool kHasInstruction = false;
std::uint32_t sse_crc(std::uint32_t crc, std::span<const std::byte>) {
  return crc;
}
std::uint32_t sse_record(std::uint64_t, std::uint64_t, std::uint32_t, std::span<const std::byte>) {
  return 0;
}

#endif

}  // namespace

std::uint32_t crc32c_table(std::uint32_t crc, std::span<const std::byte> bytes) {
  return ~table_update(~crc, bytes.data(), bytes.size());
}

std::uint32_t crc32c(std::uint32_t crc, std::span<const std::byte> bytes) {
  return kHasInstruction ? sse_crc(crc, bytes) : crc32c_table(crc, bytes);
}

std::uint32_t crc32c_record(std::uint64_t word0, std::uint64_t word1, std::uint32_t word2,
                            std::span<const std::byte> payload) {
  if (kHasInstruction) return sse_record(word0, word1, word2, payload);
  std::uint32_t state = table_update_word(0xffffffffu, word0);
  state = table_update_word(state, word1);
  state = table_update_word(state, word2);
  return ~table_update(state, payload.data(), payload.size());
}

}  // namespace sluice
