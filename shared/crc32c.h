// CRC-32C (Castagnoli; RFC 3720 appendix B.4): finds stray writes and torn records, not malice.
// Uses the SSE4.2 instruction where the CPU has it, else a table; both give the same values
// (crc32c_test.cc). About 3 cycles per 8 bytes with the instruction.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace sluice {

// Continues `crc` (0 to begin): crc32c(crc32c(0, a), b) == crc32c(0, a followed by b).
std::uint32_t crc32c(std::uint32_t crc, std::span<const std::byte> bytes);

// The slow one that the fast one must equal.
std::uint32_t crc32c_table(std::uint32_t crc, std::span<const std::byte> bytes);

// A record's checksum: three words of header (20 bytes), then the payload, in one pass.
std::uint32_t crc32c_record(std::uint64_t word0, std::uint64_t word1, std::uint32_t word2,
                            std::span<const std::byte> payload);

}  // namespace sluice
