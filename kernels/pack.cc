// Packing is a transposition of 16 rows at a time; it runs once, while a model is loaded.
#include "kernels/pack.h"

#include <array>
#include <cstdint>
#include <cstring>

#include "kernels/half_float.h"
#include "kernels/panel_block.h"
#include "kernels/quantized_blocks.h"

namespace sluice::krn {
namespace {

// Calls body(first, count) for the rows of `rows` from first_row on that share a panel; `first` is
// relative to first_row.
template <class Body>
void for_each_panel(std::size_t first_row, std::size_t rows, const Body& body) {
  for (std::size_t r = 0; r < rows;) {
    const std::size_t left = kLanes - (first_row + r) % kLanes;
    const std::size_t count = left < rows - r ? left : rows - r;
    body(r, count);
    r += count;
  }
}

// Four 32-bit words: a register of every x86-64, and of others.
using Words = std::uint32_t __attribute__((vector_size(16)));

// [row][word] becomes [word][row].
void transpose(std::array<Words, 4>& m) {
  const Words low01 = __builtin_shufflevector(m[0], m[1], 0, 4, 1, 5);
  const Words low23 = __builtin_shufflevector(m[2], m[3], 0, 4, 1, 5);
  const Words high01 = __builtin_shufflevector(m[0], m[1], 2, 6, 3, 7);
  const Words high23 = __builtin_shufflevector(m[2], m[3], 2, 6, 3, 7);
  m[0] = __builtin_shufflevector(low01, low23, 0, 1, 4, 5);
  m[1] = __builtin_shufflevector(low01, low23, 2, 3, 6, 7);
  m[2] = __builtin_shufflevector(high01, high23, 0, 1, 4, 5);
  m[3] = __builtin_shufflevector(high01, high23, 2, 3, 6, 7);
}

using Halves = std::uint16_t __attribute__((vector_size(16)));

template <class Vector>
Vector load(const void* from) {
  Vector loaded;
  std::memcpy(&loaded, from, sizeof loaded);
  return loaded;
}

void store(const Words& words, char* to) {
  std::memcpy(to, &words, sizeof words);
}

// 8 columns of 8 rows of 16-bit elements, `row` bytes apart, into a panel's lanes.
void transpose_halves(const char* from, std::size_t row, char* to) {
  std::array<Words, 4> low, high;  // [pair of rows][column], then [column][pair of rows]
  for (std::size_t i = 0; i < 4; ++i) {
    const auto first = load<Halves>(from + 2 * i * row);
    const auto second = load<Halves>(from + (2 * i + 1) * row);
    low[i] =
        reinterpret_cast<Words>(__builtin_shufflevector(first, second, 0, 8, 1, 9, 2, 10, 3, 11));
    high[i] =
        reinterpret_cast<Words>(__builtin_shufflevector(first, second, 4, 12, 5, 13, 6, 14, 7, 15));
  }
  transpose(low);
  transpose(high);
  for (std::size_t i = 0; i < 4; ++i) {
    store(low[i], to + i * kLanes * 2);
    store(high[i], to + (i + 4) * kLanes * 2);
  }
}

// 4 columns of 4 rows of 32-bit elements likewise.
void transpose_words(const char* from, std::size_t row, char* to) {
  std::array<Words, 4> words;
  for (std::size_t i = 0; i < 4; ++i) words[i] = load<Words>(from + i * row);
  transpose(words);
  for (std::size_t i = 0; i < 4; ++i) store(words[i], to + i * kLanes * 4);
}

// A whole panel of elements that stay as they are, of `bytes` (2 or 4) each; cols is a multiple of
// 8. A cache line of few rows at a time: rows that lie a power of two apart share a cache set.
void pack_panel(const char* from, std::size_t bytes, std::size_t cols, char* panel) {
  const std::size_t square = 16 / bytes;
  const std::size_t line = 64 / bytes;
  for (std::size_t begin = 0; begin < cols; begin += line) {
    const std::size_t end = cols - begin < line ? cols : begin + line;
    for (std::size_t r = 0; r < kLanes; r += square) {
      for (std::size_t c = begin; c < end; c += square) {
        const char* const source = from + (r * cols + c) * bytes;
        char* const to = panel + (c * kLanes + r) * bytes;
        if (bytes == 2)
          transpose_halves(source, cols * 2, to);
        else
          transpose_words(source, cols * 4, to);
      }
    }
  }
}

// Some columns of all rows of a panel at a time: what they share stays in the innermost cache.
template <class Element, class Convert>
void pack(const char* source, std::size_t source_bytes, std::size_t rows, std::size_t cols,
          std::size_t first_row, Element* panels, Convert convert) {
  constexpr std::size_t kColumns = 64;
  for_each_panel(first_row, rows, [&](std::size_t first, std::size_t count) {
    Element* const panel = panels + (first_row + first) / kLanes * cols * kLanes;
    for (std::size_t begin = 0; begin < cols; begin += kColumns) {
      const std::size_t end = cols - begin < kColumns ? cols : begin + kColumns;
      for (std::size_t r = first; r < first + count; ++r) {
        Element* const to = panel + (first_row + r) % kLanes;
        const char* const from = source + r * cols * source_bytes;
        for (std::size_t c = begin; c < end; ++c) to[c * kLanes] = convert(from + c * source_bytes);
      }
    }
  });
}

std::uint16_t read_u16(const char* p) {
  std::uint16_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return bits;
}

float read_f32(const char* p) {
  float value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

template <class Element, class Convert>
void unpack(const PackedMatrix& matrix, std::size_t first_row, std::size_t rows, float* out,
            Convert convert) {
  const auto* panels = static_cast<const Element*>(matrix.panels);
  for (std::size_t r = 0; r < rows; ++r) {
    const std::size_t row = first_row + r;
    const Element* from = panels + row / kLanes * matrix.cols * kLanes + row % kLanes;
    for (std::size_t c = 0; c < matrix.cols; ++c) *out++ = convert(from[c * kLanes]);
  }
}

// Where a row's part of a panel goes.
class PanelRow {
 public:
  PanelRow(char* panel, WeightType type, std::size_t lane)
      : panel_(panel), type_(type), lane_(lane) {}

  // Element `at` of an array [..][16 rows] of `bytes` each that begins `offset` behind the scales.
  void scale(std::size_t block, std::size_t offset, std::size_t at, const void* from,
             std::size_t bytes) const {
    std::memcpy(panel_ + scales_at(block, type_) + offset + (at * kLanes + lane_) * bytes, from,
                bytes);
  }
  // The row's bytes of a block, [num_groups][4], each group to its place.
  template <std::size_t num_groups>
  void weights(std::size_t block, const std::array<std::uint8_t, num_groups * 4>& bytes) const {
    char* at = panel_ + weights_at(block, type_) + lane_ * 4;
    for (std::size_t g = 0; g < num_groups; ++g)
      std::memcpy(at + g * kLanes * 4, bytes.data() + g * 4, 4);
  }

 private:
  char* panel_;
  WeightType type_;
  std::size_t lane_;
};

// A whole panel of q8_0 or q4_0, as the functions of a row below do it; here four rows and 16 bytes
// at a time.
void pack_block_panel(const std::uint8_t* from, WeightType type, std::size_t cols, char* panel) {
  const std::size_t bytes = row_bytes(kQuantBlock, type);
  const std::size_t row = row_bytes(cols, type);
  const std::uint32_t sign = type == WeightType::q8_0 ? 0x80808080u : 0u;
  for (std::size_t block = 0; block < cols / kQuantBlock; ++block, from += bytes) {
    char* const scales = panel + scales_at(block, type) + block % 2 * kLanes * 2;
    for (std::size_t r = 0; r < kLanes; ++r) std::memcpy(scales + r * 2, from + r * row, 2);
    char* const weights = panel + weights_at(block, type);
    for (std::size_t at = 0; at < bytes - 2; at += sizeof(Words)) {
      for (std::size_t r = 0; r < kLanes; r += 4) {
        std::array<Words, 4> words;
        for (std::size_t i = 0; i < 4; ++i) words[i] = load<Words>(from + (r + i) * row + 2 + at);
        transpose(words);
        for (std::size_t i = 0; i < 4; ++i)
          store(words[i] ^ sign, weights + (at + i * 4) * kLanes + r * 4);
      }
    }
  }
}

void pack_q8_0(const std::uint8_t* from, std::size_t block, const PanelRow& to) {
  to.scale(block, 0, block % 2, from, 2);
  std::array<std::uint8_t, kQuantBlock> bytes;
  for (std::size_t c = 0; c < kQuantBlock; ++c)  // int8 + 128 is the same bits with the sign turned
    bytes[c] = from[2 + c] ^ 0x80;
  to.weights<8>(block, bytes);
}

void pack_q4_0(const std::uint8_t* from, std::size_t block, const PanelRow& to) {
  to.scale(block, 0, block % 2, from, 2);
  std::array<std::uint8_t, kQuantBlock / 2> bytes;
  std::memcpy(bytes.data(), from + 2, bytes.size());
  to.weights<4>(block, bytes);
}

// The low four bits of 32 columns, one a byte, as panels have them: columns 16 on in the upper
// half.
void fold_nibbles(const std::uint8_t* columns, std::uint8_t* bytes) {
  for (std::size_t i = 0; i < kQuantBlock / 2; ++i)
    bytes[i] = static_cast<std::uint8_t>(columns[i] | columns[i + kQuantBlock / 2] << 4);
}

// One half of each of 32 bytes: the low one for `shift` 0, else the high one (4).
void take_nibbles(const std::uint8_t* from, unsigned shift, std::uint8_t* columns) {
  for (std::size_t c = 0; c < kQuantBlock; ++c)
    columns[c] = static_cast<std::uint8_t>(from[c] >> shift & 15u);
}

void pack_scales_and_minima(const std::uint8_t* from, std::size_t block, const PanelRow& to) {
  to.scale(block, 0, 0, from, 2);
  to.scale(block, 32, 0, from + 2, 2);
  for (std::size_t b = 0; b < 8; ++b) {
    const SixBits six = scale_and_min(from + 4, b);
    to.scale(block, 64, b, &six.scale, 1);
    to.scale(block, 64 + kSuperBlock / 2, b, &six.min, 1);
  }
}

void pack_q5_k(const std::uint8_t* from, std::size_t block, const PanelRow& to) {
  pack_scales_and_minima(from, block, to);
  const std::uint8_t* high = from + 16;
  for (std::size_t b = 0; b < 8; ++b) {
    std::uint8_t columns[kQuantBlock];
    take_nibbles(from + 48 + b / 2 * 32, b % 2 * 4, columns);
    std::array<std::uint8_t, kQuantBlock / 2 + 4> bytes{};
    fold_nibbles(columns, bytes.data());
    for (std::size_t g = 0; g < 8; ++g) {  // the fifth bits of the columns 4 g .. 4 g + 3
      for (std::size_t i = 0; i < 4; ++i)
        bytes[16 + i] = static_cast<std::uint8_t>(bytes[16 + i] | (high[4 * g + i] >> b & 1u) << g);
    }
    to.weights<5>(block + b, bytes);
  }
}

void pack_q4_k(const std::uint8_t* from, std::size_t block, const PanelRow& to) {
  pack_scales_and_minima(from, block, to);
  for (std::size_t b = 0; b < 8; ++b) {
    std::uint8_t columns[kQuantBlock];
    take_nibbles(from + 16 + b / 2 * 32, b % 2 * 4, columns);
    std::array<std::uint8_t, kQuantBlock / 2> bytes;
    fold_nibbles(columns, bytes.data());
    to.weights<4>(block + b, bytes);
  }
}

void pack_q6_k(const std::uint8_t* from, std::size_t block, const PanelRow& to) {
  to.scale(block, 0, 0, from + 208, 2);
  for (std::size_t i = 0; i < 16; ++i) to.scale(block, 64, i, from + 192 + i, 1);
  for (std::size_t b = 0; b < 8; ++b) {  // elements 32 b .. 32 b + 31: a quarter of a half
    const std::uint8_t* high = from + 128 + b / 4 * 32;
    std::uint8_t columns[kQuantBlock];
    take_nibbles(from + b / 4 * 64 + b % 2 * 32, b % 4 < 2 ? 0 : 4, columns);
    std::array<std::uint8_t, kQuantBlock / 2 + 8> bytes{};
    fold_nibbles(columns, bytes.data());
    for (std::size_t half = 0; half < 2; ++half) {
      for (std::size_t s = 0; s < 4; ++s) {  // the upper two bits of four columns
        for (std::size_t i = 0; i < 4; ++i) {
          const unsigned two = high[half * 16 + s * 4 + i] >> (b % 4 * 2) & 3u;
          std::uint8_t& byte = bytes[16 + half * 4 + i];
          byte = static_cast<std::uint8_t>(byte | two << (2 * s));
        }
      }
    }
    to.weights<6>(block + b, bytes);
  }
}

// `count` rows from `from` on become those from `lane` on of one panel, (super-)block by
// (super-)block for the reason above.
template <class PackBlock>
void pack_blocks(const std::uint8_t* from, WeightType type, std::size_t count, std::size_t cols,
                 char* panel, std::size_t lane, const PackBlock& pack_block) {
  const std::size_t step = has_super_blocks(type) ? kSuperBlock : kQuantBlock;
  const std::size_t bytes = row_bytes(step, type);
  const std::size_t row = row_bytes(cols, type);
  for (std::size_t column = 0; column < cols; column += step, from += bytes) {
    for (std::size_t r = 0; r < count; ++r)
      pack_block(from + r * row, column / kQuantBlock, PanelRow(panel, type, lane + r));
  }
}

void pack_quantized_rows(const std::uint8_t* from, WeightType type, std::size_t count,
                         std::size_t cols, char* panel, std::size_t lane) {
  const bool is_simple = type == WeightType::q8_0 || type == WeightType::q4_0;
  if (is_simple && count == kLanes) return pack_block_panel(from, type, cols, panel);
  switch (type) {
    case WeightType::q8_0:
      return pack_blocks(from, WeightType::q8_0, count, cols, panel, lane, pack_q8_0);
    case WeightType::q4_0:
      return pack_blocks(from, WeightType::q4_0, count, cols, panel, lane, pack_q4_0);
    case WeightType::q4_k:
      return pack_blocks(from, WeightType::q4_k, count, cols, panel, lane, pack_q4_k);
    case WeightType::q5_k:
      return pack_blocks(from, WeightType::q5_k, count, cols, panel, lane, pack_q5_k);
    case WeightType::q6_k:
      return pack_blocks(from, WeightType::q6_k, count, cols, panel, lane, pack_q6_k);
    default:
      return;  // excluded by the contract
  }
}

}  // namespace

void pack_rows(const void* source, WeightType source_type, std::size_t rows, std::size_t cols,
               std::size_t first_row, void* panels, WeightType panel_type) {
  const char* from = static_cast<const char*>(source);
  if (is_quantized(panel_type)) {
    for_each_panel(first_row, rows, [&](std::size_t first, std::size_t count) {
      char* const panel =
          static_cast<char*>(panels) + (first_row + first) / kLanes * panel_bytes(cols, panel_type);
      pack_quantized_rows(
          reinterpret_cast<const std::uint8_t*>(from) + first * row_bytes(cols, panel_type),
          panel_type, count, cols, panel, (first_row + first) % kLanes);
    });
    return;
  }
  const std::size_t bytes = weight_bytes(source_type);
  if (panel_type == source_type && cols % 8 == 0 && first_row % kLanes == 0) {
    const std::size_t whole = rows / kLanes * kLanes;
    const std::size_t panel = kLanes * cols * bytes;
    for (std::size_t r = 0; r < whole; r += kLanes)
      pack_panel(from + r * cols * bytes, bytes, cols,
                 static_cast<char*>(panels) + (first_row + r) / kLanes * panel);
    from += whole * cols * bytes;
    first_row += whole;
    rows -= whole;
  }
  if (panel_type != WeightType::f32) {
    pack(from, bytes, rows, cols, first_row, static_cast<std::uint16_t*>(panels), read_u16);
    return;
  }
  float* to = static_cast<float*>(panels);
  switch (source_type) {
    case WeightType::f32:
      return pack(from, bytes, rows, cols, first_row, to, read_f32);
    case WeightType::bf16:
      return pack(from, bytes, rows, cols, first_row, to,
                  [](const char* p) { return bf16_to_float(read_u16(p)); });
    case WeightType::f16:
      return pack(from, bytes, rows, cols, first_row, to,
                  [](const char* p) { return f16_to_float(read_u16(p)); });
    case WeightType::q8_0:
    case WeightType::q4_0:
    case WeightType::q4_k:
    case WeightType::q5_k:
    case WeightType::q6_k:
      return;  // excluded by the contract
  }
}

void unpack_rows(const PackedMatrix& matrix, std::size_t first_row, std::size_t rows, float* out) {
  switch (matrix.type) {
    case WeightType::f32:
      return unpack<float>(matrix, first_row, rows, out, [](float value) { return value; });
    case WeightType::bf16:
      return unpack<std::uint16_t>(matrix, first_row, rows, out, bf16_to_float);
    case WeightType::f16:
      return unpack<std::uint16_t>(matrix, first_row, rows, out, f16_to_float);
    case WeightType::q8_0:
    case WeightType::q4_0:
    case WeightType::q4_k:
    case WeightType::q5_k:
    case WeightType::q6_k:
      break;
  }
  for (std::size_t r = first_row; r < first_row + rows; ++r) {
    const char* panel = static_cast<const char*>(matrix.panels) +
                        r / kLanes * panel_bytes(matrix.cols, matrix.type);
    for (std::size_t b = 0; b < matrix.cols / kQuantBlock; ++b) {
      const PanelBlock block = read_panel_block(panel, matrix.type, r % kLanes, b);
      for (std::size_t c = 0; c < kQuantBlock; ++c) {
        const int q = block.q[c] * block.half_scales[c / 16];
        *out++ = block.scale * static_cast<float>(q) - block.min;
      }
    }
  }
}

}  // namespace sluice::krn
