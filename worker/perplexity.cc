// The score of a text, and the command around it; see perplexity.h.
#include "worker/perplexity.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <ostream>
#include <string>
#include <vector>

#include "config/config.h"
#include "config/load_config.h"
#include "tokenizer/tokenizer.h"
#include "worker/make_executor.h"

namespace sluice::eng {
namespace {

constexpr std::uint64_t kTextBytesMax = 256u << 20;
constexpr std::uint32_t kBlockTokens = 16;
constexpr char kUsage[] =
    "usage: sluice perplexity --model MODEL --file TEXT [--context N] [--chunks N] [--threads N]\n"
    "                         [--kv-type f32|f16|int8] [--kernels NAME]\n"
    "  MODEL      directory (Hugging Face layout) or GGUF file\n"
    "  --context  tokens of a chunk, of which the second half is scored (512)\n"
    "  --chunks   the first N chunks only\n"
    "  --threads  0: as many as the machine has (0)\n";

// -log softmax(logits)[id]
double negative_log_likelihood(std::span<const float> logits, TokenId id) {
  const double highest = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - highest);
  return std::log(sum) + highest - static_cast<double>(logits[id]);
}

class Scorer {
 public:
  Scorer(Executor& executor, const PerplexityOptions& options)
      : executor_(executor), options_(options), facts_(executor.facts()) {
    const std::size_t blocks =
        (options.context_tokens + facts_.block_tokens - 1) / facts_.block_tokens;
    for (std::uint32_t b = 0; b < blocks; ++b) blocks_.push_back(BlockId(b));
  }

  void add_chunk(std::vector<TokenId> ids) {
    const std::uint32_t first = options_.context_tokens / 2;
    const std::uint32_t last = options_.context_tokens - 1;  // its own logits predict nothing here
    for (std::uint32_t at = 0; at < last;) {
      const bool is_scored = at >= first;
      const std::uint32_t room =
          is_scored ? std::min(facts_.step_tokens_max, kStepScoresMax) : facts_.step_tokens_max;
      const std::uint32_t count = std::min(room, (is_scored ? last : first) - at);
      const SequenceSpan span{SequenceId(1), std::span<const TokenId>(ids).subspan(at, count), at,
                              blocks_, is_scored ? count : 0};
      const std::span<const float> logits = executor_.forward({&span, 1});
      for (std::uint32_t i = 0; is_scored && i < count; ++i)
        add(negative_log_likelihood(
            logits.subspan(std::size_t{i} * facts_.vocab_size, facts_.vocab_size),
            ids[at + i + 1]));
      at += count;
    }
    ++num_chunks_;
  }

  Perplexity result() const {
    const auto n = static_cast<double>(num_scored_);
    Perplexity out{.num_chunks = num_chunks_, .num_scored = num_scored_, .mean_nll = sum_ / n};
    out.value = std::exp(out.mean_nll);
    const double variance = squares_ / n - out.mean_nll * out.mean_nll;
    if (num_scored_ > 1)
      out.standard_error = out.value * std::sqrt(std::max(variance, 0.0) / (n - 1));
    return out;
  }

 private:
  void add(double nll) {
    sum_ += nll;
    squares_ += nll * nll;
    ++num_scored_;
  }

  Executor& executor_;
  const PerplexityOptions& options_;
  WorkerFacts facts_;
  std::vector<BlockId> blocks_;
  double sum_ = 0;
  double squares_ = 0;
  std::uint64_t num_scored_ = 0;
  std::uint64_t num_chunks_ = 0;
};

struct Arguments {
  cfg::Model model;
  std::string file;
  PerplexityOptions options;
};

template <class Number>
bool take_number(std::string_view text, Number least, Number most, Number& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size() && out >= least && out <= most;
}

bool take_kv_type(std::string_view text, cfg::KvType& out) {
  if (text == "f32")
    out = cfg::KvType::f32;
  else if (text == "f16")
    out = cfg::KvType::f16;
  else if (text == "int8")
    out = cfg::KvType::int8;
  else
    return false;
  return true;
}

bool take(std::string_view flag, std::string_view value, Arguments& out) {
  if (flag == "--model") return !(out.model.path = value).empty();
  if (flag == "--file") return !(out.file = value).empty();
  if (flag == "--kernels") return !(out.model.kernels = value).empty();
  if (flag == "--kv-type") return take_kv_type(value, out.model.kv_type);
  if (flag == "--threads") return take_number(value, 0u, 64u, out.model.threads);
  if (flag == "--context")
    return take_number(value, 4u, kContextTokensMax, out.options.context_tokens);
  if (flag == "--chunks")
    return take_number<std::uint64_t>(value, 1, UINT32_MAX, out.options.chunks_max);
  return false;
}

// Nothing when the arguments are wrong.
std::optional<Arguments> parse(std::span<char* const> arguments) {
  Arguments out;
  for (std::size_t i = 0; i < arguments.size(); i += 2) {
    if (i + 1 == arguments.size() || !take(arguments[i], arguments[i + 1], out))
      return std::nullopt;
  }
  if (out.model.path.empty() || out.file.empty()) return std::nullopt;
  out.model.kind = cfg::ModelKind::llama;
  out.model.context_tokens = out.options.context_tokens;
  out.model.block_tokens = kBlockTokens;
  out.model.num_blocks = (out.options.context_tokens + kBlockTokens - 1) / kBlockTokens;
  out.model.sequences_max = 1;
  out.model.step_tokens_max = 512;
  return out;
}

Result<std::string> read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const std::streamoff bytes = file ? std::streamoff{file.tellg()} : -1;
  if (bytes < 0) return make_error(Errc::io_error, path + ": cannot be read");
  if (static_cast<std::uint64_t>(bytes) > kTextBytesMax)
    return make_error(Errc::invalid_value, path + ": longer than 256 MiB");
  std::string text(static_cast<std::size_t>(bytes), '\0');
  file.seekg(0);
  if (!file.read(text.data(), bytes))
    return make_error(Errc::io_error, path + ": cannot be read to its end");
  if (text.ends_with('\n')) text.pop_back();  // one, as the others do
  return text;
}

Result<Perplexity> run(Arguments& arguments, std::ostream& out) {
  const Result<std::string> text = read_text(arguments.file);
  if (!text) return text.error();
  const auto tokenizer = tok::Tokenizer::load(cfg::tokenizer_path(arguments.model));
  if (!tokenizer) return tokenizer.error();
  std::vector<TokenId> ids;
  const tok::Vocabulary& vocabulary = tokenizer->vocabulary();
  if (vocabulary.adds_bos && vocabulary.bos) {
    arguments.options.bos = vocabulary.bos;
    ids.push_back(*vocabulary.bos);
  }
  tokenizer->encode(*text, tok::Segment::first, ids);
  const auto executor = make_executor(arguments.model);
  if (!executor) return executor.error();
  out << "tokens      " << ids.size() << '\n' << std::flush;
  return measure_perplexity(**executor, ids, arguments.options, [&](const Perplexity& so_far) {
    out << "chunk " << so_far.num_chunks << "  " << so_far.value << '\n' << std::flush;
  });
}

}  // namespace

Result<Perplexity> measure_perplexity(Executor& executor, std::span<const TokenId> ids,
                                      const PerplexityOptions& options,
                                      const std::function<void(const Perplexity&)>& on_chunk) {
  const std::uint32_t context = options.context_tokens;
  const WorkerFacts facts = executor.facts();
  CHECK(context >= 4);
  if (context > facts.context_tokens)
    return make_error(Errc::invalid_value,
                      "the model's context is " + std::to_string(facts.context_tokens) + " tokens",
                      "context");
  std::uint64_t num_chunks = ids.size() / context;
  if (num_chunks == 0)
    return make_error(Errc::invalid_value,
                      "the text has " + std::to_string(ids.size()) + " tokens, one chunk takes " +
                          std::to_string(context),
                      "file");
  if (options.chunks_max > 0) num_chunks = std::min(num_chunks, options.chunks_max);
  Scorer scorer(executor, options);
  for (std::uint64_t c = 0; c < num_chunks; ++c) {
    const auto chunk = ids.subspan(c * context, context);
    std::vector<TokenId> own(chunk.begin(), chunk.end());
    if (options.bos) own.front() = *options.bos;
    scorer.add_chunk(std::move(own));
    if (on_chunk) on_chunk(scorer.result());
  }
  return scorer.result();
}

int run_perplexity(std::span<char* const> arguments, std::ostream& out, std::ostream& errors) {
  std::optional<Arguments> parsed = parse(arguments);
  if (!parsed) {
    errors << kUsage;
    return 2;
  }
  const Result<Perplexity> result = run(*parsed, out);
  if (!result) {
    errors << "error: " << result.error().detail << '\n';
    return 1;
  }
  out << "scored      " << result->num_scored << " tokens\nperplexity  " << result->value << " +/- "
      << result->standard_error << '\n';
  return 0;
}

}  // namespace sluice::eng
