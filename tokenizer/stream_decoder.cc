// Holds back the start of a character until its rest arrives; see stream_decoder.h.
#include "tokenizer/stream_decoder.h"

#include <algorithm>

#include "tokenizer/utf8.h"

namespace sluice::tok {

void StreamDecoder::push(std::string_view bytes, std::string& text) {
  // First settle what was held, byte by byte: it completes, or turns out invalid.
  while (held_size_ != 0 && !bytes.empty()) {
    held_[held_size_++] = bytes.front();
    const Utf8Unit unit = next_utf8({held_.data(), held_size_});
    if (unit.status == Utf8Status::incomplete) {
      bytes.remove_prefix(1);
    } else if (unit.status == Utf8Status::character) {
      text.append(held_.data(), held_size_);
      held_size_ = 0;
      bytes.remove_prefix(1);
    } else {
      // The held part alone was invalid; the new byte starts afresh from `bytes`.
      text += kReplacement;
      held_size_ = 0;
    }
  }
  std::size_t end = bytes.size();
  // Only the last three bytes can belong to an incomplete character.
  for (std::size_t back = 1; back <= std::min<std::size_t>(3, bytes.size()); ++back) {
    const std::size_t start = bytes.size() - back;
    const auto lead = static_cast<unsigned char>(bytes[start]);
    if (lead < 0xC0) continue;  // ASCII or a continuation byte
    if (next_utf8(bytes.substr(start)).status == Utf8Status::incomplete) end = start;
    break;
  }
  append_valid_utf8(bytes.substr(0, end), text);
  held_size_ = static_cast<std::uint8_t>(held_size_ + bytes.size() - end);
  std::ranges::copy(bytes.substr(end), held_.data());
}

void StreamDecoder::finish(std::string& text) {
  if (held_size_ != 0) text += kReplacement;
  held_size_ = 0;
}

}  // namespace sluice::tok
