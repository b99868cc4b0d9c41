// The pieces of a vocabulary that user text never yields (special and user-defined ones), by their
// text: a chat template's own text is matched against them, the longest first, as Hugging Face's
// added tokens are. Filled once, then constant; no thread rule.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "shared/ids.h"

namespace sluice::tok {

struct SpecialMatch {
  TokenId id;
  std::size_t bytes;
};

class SpecialPieces {
 public:
  void add(std::string_view text, TokenId id);  // empty texts are left out
  void finish();                                // once, behind the last add()

  // The longest one that `text` begins with.
  std::optional<SpecialMatch> match(std::string_view text) const;
  std::string_view text_of(TokenId id) const;  // empty: it is none of them

 private:
  std::vector<std::pair<std::string, TokenId>> pieces_;  // sorted; of equal texts the first counts
  std::array<bool, 256> first_bytes_{};
};

}  // namespace sluice::tok
