// What tokenizing costs: short prompts with a warm and a cold word cache and by the library alone
// (of a SentencePiece file), chats by the model's own template and by the family of its special
// tokens, long ordinary text, and the inputs that are meant to hurt. Prints the median and the
// range over REPEATS; one thread, CPU time.
// usage: tokenizer_bench [MODEL_FILE] [REPEATS] [TEXT_FILE]   (the built-in model, 5, none)
#include <sentencepiece_processor.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include "shared/random.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/word_cache.h"

namespace sluice::tok {
namespace {

constexpr std::size_t kLongBytes = 1u << 20;
constexpr const char* kPrompt =
    "You are a helpful assistant. Please explain in two or three sentences why the sky is blue, "
    "and "
    "what changes when the sun goes down behind the mountains.";

double cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

struct Spread {
  double median, min, max;
};

// Seconds of one call of `work`, which is called `calls` times a repeat.
Spread measure(int repeats, int calls, const std::function<void()>& work) {
  std::vector<double> times;
  work();
  for (int r = 0; r < repeats; ++r) {
    const double start = cpu_seconds();
    for (int c = 0; c < calls; ++c) work();
    times.push_back((cpu_seconds() - start) / calls);
  }
  std::ranges::sort(times);
  return {times[times.size() / 2], times.front(), times.back()};
}

std::string repeated(const std::string& unit) {
  std::string text;
  while (text.size() < kLongBytes) text += unit;
  return text;
}

// Words of random letters: few repeat, so the cache helps little.
std::string random_words() {
  std::string text;
  for (std::uint32_t i = 0; text.size() < kLongBytes; ++i) {
    const std::uint64_t bits = random_bits({1, 0, i}, 0);
    text += bits % 6 == 0 ? ' ' : static_cast<char>('a' + bits / 8 % 26);
  }
  return text;
}

void report(const char* name, const Spread& time, std::size_t bytes, std::size_t tokens) {
  std::printf("%-34s %10.1f us (%.1f..%.1f) %8.1f MB/s %8zu tokens\n", name, time.median * 1e6,
              time.min * 1e6, time.max * 1e6, static_cast<double>(bytes) / time.median / 1e6,
              tokens);
}

// Chats of one question, and of nine messages.
void bench_chats(const Tokenizer& tokenizer, int repeats) {
  std::vector<ChatMessage> messages{{Role::system, "Be brief.", ""}};
  for (int turn = 0; turn < 4; ++turn) {
    messages.push_back({Role::user, kPrompt, ""});
    messages.push_back({Role::assistant, kPrompt, ""});
  }
  const auto report_chat = [&](const char* name, const Result<ChatTemplate>& chat,
                               std::span<const ChatMessage> told) {
    if (!chat) return;
    std::vector<TokenId> ids;
    std::size_t bytes = 0;
    for (const ChatMessage& message : told) bytes += message.content.size();
    const Spread time = measure(repeats, 500, [&] {
      ids.clear();
      (void)chat->encode(tokenizer, told, {}, ids).has_value();
    });
    report(name, time, bytes, ids.size());
  };
  const auto published = ChatTemplate::make_published(tokenizer);
  const auto family = ChatTemplate::make(recognise_family(tokenizer), tokenizer);
  const std::span<const ChatMessage> all(messages);
  report_chat("chat of 1, own template", published, all.subspan(1, 1));
  report_chat("chat of 1, family", family, all.subspan(1, 1));
  report_chat("chat of 9, own template", published, all);
  report_chat("chat of 9, family", family, all);
}

int bench(const std::string& path, int repeats, const char* text_file) {
  auto loaded = Tokenizer::load(path);
  sentencepiece::SentencePieceProcessor library;
  if (!loaded) {
    std::fprintf(stderr, "%s\n", loaded.error().detail.c_str());
    return 1;
  }
  const bool has_library = library.Load(path).ok();
  const Tokenizer& tokenizer = *loaded;
  std::vector<TokenId> ids;
  std::vector<int> pieces;
  const auto ours = [&](const std::string& text) {
    ids.clear();
    tokenizer.encode(text, Segment::first, ids);
  };
  const auto theirs = [&](const std::string& text) { (void)library.Encode(text, &pieces); };

  const std::string prompt = kPrompt;
  report("short prompt, warm cache", measure(repeats, 2000, [&] { ours(prompt); }), prompt.size(),
         (ours(prompt), ids.size()));
  report("short prompt, new cache",
         measure(repeats, 50,
                 [&] {
                   WordCache::this_thread() = WordCache();
                   ours(prompt);
                 }),
         prompt.size(), ids.size());
  report("making a new cache",
         measure(repeats, 50, [&] { WordCache::this_thread() = WordCache(); }), 0, 0);
  if (has_library)
    report("short prompt, library", measure(repeats, 500, [&] { theirs(prompt); }), prompt.size(),
           ids.size());

  bench_chats(tokenizer, repeats);

  std::vector<std::pair<const char*, std::string>> texts{
      {"1 MiB of ordinary text", repeated(prompt + "\n")},
      {"1 MiB of random words", random_words()},
      {"1 MiB of one letter", repeated("a")},
      {"1 MiB of spaces", repeated(" ")},
      {"1 MiB of two letters", repeated("ab")},
      {"1 MiB of Han characters", repeated("\u6f22\u5b57\u8a9e\u6587")},
      {"1 MiB of broken bytes", repeated("\xFF\xE2\x82")},
  };
  if (text_file != nullptr) {
    std::ifstream file(text_file, std::ios::binary);
    texts.emplace_back("the text file", std::string(std::istreambuf_iterator<char>(file), {}));
  }
  for (const auto& named : texts) {
    const std::string& text = named.second;
    const Spread time = measure(repeats, 1, [&] { ours(text); });
    report(named.first, time, text.size(), ids.size());
    if (!has_library) continue;
    const Spread library_time = measure(repeats, 1, [&] { theirs(text); });
    report("  by the library", library_time, text.size(), pieces.size());
  }
  return 0;
}

}  // namespace
}  // namespace sluice::tok

int main(int argc, char** argv) {
  const std::string path = argc > 1 ? argv[1] : SLUICE_SOURCE_DIR "/models/canned/tokenizer.model";
  return sluice::tok::bench(path, argc > 2 ? std::max(1, std::atoi(argv[2])) : 5,
                            argc > 3 ? argv[3] : nullptr);
}
