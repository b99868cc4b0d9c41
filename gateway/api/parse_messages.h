// The `messages` array of chat bodies. Included by the parsers of this folder only.
#pragma once

#include <vector>

#include "gateway/api/field_reader.h"
#include "tokenizer/chat_template.h"

namespace sluice::gw {

// Content is a string or a list of text parts, which are joined by newlines.
bool read_messages(FieldReader& reader, simdjson::dom::element value,
                   std::vector<tok::ChatMessage>& out);

}  // namespace sluice::gw
