// PieceBorders: places where no piece of a BPE vocabulary can begin before and end behind, so that
// a text may be cut there and its parts encoded one by one with exactly the same result.
//
// A merge across a place needs a piece that holds the two characters around it side by side. The
// set of all such pairs is therefore a proof: a pair that is not in it is a border. Holds for BPE
// with byte fallback on text that is only escaped, not normalized (unknown characters become their
// bytes one by one). Spaces count as U+2581, as the vocabulary writes them. Immutable after
// construction; safe in any thread.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "tokenizer/model_proto.h"

namespace sluice::tok {

class PieceBorders {
 public:
  PieceBorders() = default;
  explicit PieceBorders(const ModelProtoFacts& model);

  // Cutting is exact for this model at all: see above. If not, nothing else here may be used.
  bool can_cut() const { return can_cut_; }
  // The first word of `text` (REQUIRES: valid UTF-8, not empty): up to a space that no piece joins
  // to what is before it, or a line end that stands alone. May be all of `text`.
  std::size_t word_bytes(std::string_view text) const;
  // The same with every border, at the price of a look-up per character.
  std::size_t part_bytes(std::string_view text) const;

 private:
  bool has_pair(std::uint32_t first, std::uint32_t second) const;

  bool can_cut_ = false;
  bool cuts_before_space_ = false;    // no piece has a space behind another character
  bool cuts_around_newline_ = false;  // no piece has a line end beside anything else
  std::vector<std::uint64_t> pairs_;  // open addressing, power of two; 0 is free
};

}  // namespace sluice::tok
