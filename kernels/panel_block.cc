// The layouts of shapes.h, element by element.
#include "kernels/panel_block.h"

#include <cstdint>
#include <cstring>

#include "kernels/half_float.h"

namespace sluice::krn {
namespace {

class Reader {
 public:
  Reader(const void* panel, WeightType type, std::size_t lane, std::size_t block)
      : scales_(static_cast<const std::uint8_t*>(panel) + scales_at(block, type)),
        weights_(static_cast<const std::uint8_t*>(panel) + weights_at(block, type)),
        lane_(lane) {}

  float half(std::size_t offset, std::size_t at) const {
    std::uint16_t bits;
    std::memcpy(&bits, scales_ + offset + (at * kLanes + lane_) * 2, sizeof bits);
    return f16_to_float(bits);
  }
  std::uint8_t small(std::size_t offset, std::size_t at) const {
    return scales_[offset + at * kLanes + lane_];
  }
  int byte(std::size_t group, std::size_t i) const {
    return weights_[(group * kLanes + lane_) * 4 + i];
  }
  int nibble(std::size_t column) const {
    const int both = byte(column % 16 / 4, column % 4);
    return column < 16 ? both & 15 : both >> 4;
  }
  int fifth(std::size_t column) const { return byte(4, column % 4) >> (column / 4) & 1; }
  int upper(std::size_t column) const {
    return byte(4 + column / 16, column % 4) >> (column % 16 / 4 * 2) & 3;
  }

 private:
  const std::uint8_t* scales_;
  const std::uint8_t* weights_;
  std::size_t lane_;
};

}  // namespace

PanelBlock read_panel_block(const void* panel, WeightType type, std::size_t lane,
                            std::size_t block) {
  const Reader from(panel, type, lane, block);
  PanelBlock out{{}, {1, 1}, 0, 0};
  const std::size_t at = block % blocks_together(type);
  switch (type) {
    case WeightType::q8_0:
      out.scale = from.half(0, at);
      for (std::size_t c = 0; c < kQuantBlock; ++c) out.q[c] = from.byte(c / 4, c % 4) - 128;
      break;
    case WeightType::q4_0:
      out.scale = from.half(0, at);
      for (std::size_t c = 0; c < kQuantBlock; ++c) out.q[c] = from.nibble(c) - 8;
      break;
    case WeightType::q4_k:
    case WeightType::q5_k:
      out.scale = from.half(0, 0) * static_cast<float>(from.small(64, at));
      out.min = from.half(32, 0) * static_cast<float>(from.small(64 + kSuperBlock / 2, at));
      for (std::size_t c = 0; c < kQuantBlock; ++c)
        out.q[c] = from.nibble(c) | (type == WeightType::q5_k ? from.fifth(c) << 4 : 0);
      break;
    case WeightType::q6_k:
      out.scale = from.half(0, 0);
      for (std::size_t h = 0; h < 2; ++h)
        out.half_scales[h] = static_cast<std::int8_t>(from.small(64, 2 * at + h));
      for (std::size_t c = 0; c < kQuantBlock; ++c)
        out.q[c] = (from.nibble(c) | from.upper(c) << 4) - 32;
      break;
    default:
      break;
  }
  return out;
}

}  // namespace sluice::krn
