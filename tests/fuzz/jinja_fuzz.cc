// Any bytes as a chat template, up to a zero byte, and the rest as what a user says: parsed and
// rendered or refused, within small bounds; what is rendered is valid UTF-8 with runs in order.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "shared/check.h"
#include "tokenizer/jinja/template.h"
#include "tokenizer/utf8.h"

namespace {

using namespace sluice;
using jinja::Origin;
using jinja::Value;

constexpr jinja::RenderLimits kLimits{
    .steps_max = 20'000, .heap_bytes_max = 4u << 20, .output_bytes_max = 1u << 20};

Value message(jinja::Heap& heap, std::string_view role, std::string_view content) {
  const Value dict = heap.dict();
  heap.set(*dict.dict, "role", heap.view(role, Origin::frame));
  heap.set(*dict.dict, "content", heap.view(content, Origin::content));
  return dict;
}

void check_text(const jinja::Text& text) {
  CHECK(tok::is_valid_utf8(text.bytes));
  CHECK(text.runs.empty() == text.bytes.empty());
  for (std::size_t i = 0; i < text.runs.size(); ++i) {
    CHECK(text.runs[i].begin < text.bytes.size());
    CHECK(i > 0 || text.runs[i].begin == 0);
    CHECK(i == 0 || text.runs[i - 1].begin < text.runs[i].begin);
    CHECK(i == 0 || text.runs[i - 1].origin != text.runs[i].origin);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const std::size_t zero = bytes.find('\0');
  std::string said;
  if (zero != std::string_view::npos) tok::append_valid_utf8(bytes.substr(zero + 1), said);
  const auto parsed = jinja::Template::parse(bytes.substr(0, zero));
  if (!parsed) {
    CHECK(parsed.error().code == Errc::bad_file && !parsed.error().detail.empty());
    return 0;
  }
  jinja::Heap heap(kLimits);
  const Value messages = heap.list();
  heap.append(*messages.list, message(heap, "system", "Be brief."));
  heap.append(*messages.list, message(heap, "user", said));
  heap.append(*messages.list, message(heap, "assistant", "1.5"));
  const std::vector<jinja::Variable> variables{{"messages", messages},
                                               {"add_generation_prompt", Value::of(true)},
                                               {"bos_token", heap.view("<s>", Origin::frame)},
                                               {"tools", messages}};
  const auto rendered = parsed->render(heap, variables, 1'767'225'599);
  if (rendered)
    check_text(rendered->view());
  else
    CHECK(rendered.error().code == Errc::invalid_value && !rendered.error().detail.empty());
  return 0;
}
