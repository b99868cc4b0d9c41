// Where the time of a forward pass goes, by context length: a model file decodes one token, and
// prefills a chunk, behind so many positions. The kernels are those of the engine behind timers;
// their share is of the time of all threads, by the wall clock: asking for a thread's CPU time is a
// system call, and a thousand of them a token were a twelfth of it. What is left over is waiting
// for work and for the others, and storing K and V. Positions before the measured ones hold made-up
// K and V: attention takes as long over them. Medians of some repeats with their range.
//
//   forward_bench --model FILE [--contexts 128,1024,4096,16384] [--threads N] [--repeats N]
//                 [--streams N,N,...] [--kv-type f32|f16|int8] [--kernels NAME]
//
// --streams: sequences that decode together, each behind its own context. Contexts beyond the
// model's are left out.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

#include "kernels/aligned_buffer.h"
#include "kernels/cpu/machine_limits.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/kernel_table.h"
#include "worker/model/transformer.h"
#include "worker/model/weights.h"

namespace {

using namespace sluice;

constexpr std::size_t kChunk = 512;
constexpr std::size_t kBlockTokens = 16;

struct Options {
  std::string model;
  std::vector<std::size_t> contexts{128, 1024, 4096, 16384};
  std::size_t threads = 2;
  std::vector<std::size_t> streams{1};
  int repeats = 5;
  krn::KvType kv_type = krn::KvType::f32;
  std::string kernels = "auto";
};

double now_seconds() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// The table that the engine would use, and the same behind timers.
enum Kernel : std::size_t {
  kMatmul,
  kQuantize,
  kAttend,
  kNorm,
  kRope,
  kSwiglu,
  kAdd,
  kEmbed,
  kKernels
};
constexpr std::array<const char*, kKernels> kNames{"matmul", "quantize", "attend", "norm",
                                                   "rope",   "swiglu",   "add",    "embed"};
const krn::KernelTable* timed = nullptr;
std::array<std::atomic<std::uint64_t>, kKernels> spent;  // ns over all threads

class Timer {
 public:
  explicit Timer(Kernel kernel) : kernel_(kernel), begin_(now_seconds()) {}
  ~Timer() {
    const double seconds = now_seconds() - begin_;
    spent[kernel_].fetch_add(static_cast<std::uint64_t>(seconds * 1e9), std::memory_order_relaxed);
  }

 private:
  Kernel kernel_;
  double begin_;
};

krn::KernelTable with_timers(const krn::KernelTable& kernels) {
  timed = &kernels;
  krn::KernelTable table = kernels;
  table.matmul = [](const krn::MatmulJob& job, std::size_t begin, std::size_t end) {
    const Timer timer(kMatmul);
    timed->matmul(job, begin, end);
  };
  table.quantize = [](const krn::MatmulJob& job, std::size_t begin, std::size_t end, void* to) {
    const Timer timer(kQuantize);
    timed->quantize(job, begin, end, to);
  };
  table.attend = [](const krn::AttentionJob& job, const krn::AttentionItem& item) {
    const Timer timer(kAttend);
    timed->attend(job, item);
  };
  table.rms_norm = [](const float* x, const float* weight, float* out, std::size_t n, float eps) {
    const Timer timer(kNorm);
    timed->rms_norm(x, weight, out, n, eps);
  };
  table.rope = [](float* heads, std::size_t num_heads, std::size_t head_dim, const float* cosine,
                  const float* sine, krn::RopePairing pairing) {
    const Timer timer(kRope);
    timed->rope(heads, num_heads, head_dim, cosine, sine, pairing);
  };
  table.swiglu = [](const float* gate, const float* up, float* out, std::size_t n) {
    const Timer timer(kSwiglu);
    timed->swiglu(gate, up, out, n);
  };
  table.add = [](float* x, const float* y, std::size_t n) {
    const Timer timer(kAdd);
    timed->add(x, y, n);
  };
  table.widen = [](const void* row, krn::WeightType type, float* out, std::size_t n) {
    const Timer timer(kEmbed);
    timed->widen(row, type, out, n);
  };
  return table;
}

// One batch of `streams` sequences with `tokens` new ones each, the last at position context - 1.
struct Batch {
  std::vector<TokenId> ids;
  std::vector<std::vector<std::uint32_t>> tables;
  std::vector<krn::AttentionSpan> spans;
  std::vector<std::uint32_t> read_rows, logit_rows;

  Batch(std::size_t streams, std::size_t tokens, std::size_t context) {
    const std::size_t blocks = (context + kBlockTokens - 1) / kBlockTokens;
    for (std::size_t s = 0; s < streams; ++s) {
      std::vector<std::uint32_t> table(blocks);
      for (std::size_t b = 0; b < blocks; ++b)
        table[b] = static_cast<std::uint32_t>(s * blocks + b);
      tables.push_back(std::move(table));
    }
    for (std::size_t s = 0; s < streams; ++s) {
      spans.push_back({s * tokens, tokens, context - tokens, tables[s].data()});
      for (std::size_t t = 0; t < tokens; ++t)
        ids.push_back(static_cast<TokenId>(3 + (s * 131 + t * 17) % 200));
      read_rows.push_back(static_cast<std::uint32_t>((s + 1) * tokens - 1));
      logit_rows.push_back(static_cast<std::uint32_t>(s));
    }
  }
  eng::TokenBatch view() const { return {ids, spans, read_rows, logit_rows}; }
};

class Bench {
 public:
  Bench(const Options& options, eng::ModelWeights weights, const krn::KernelTable& kernels)
      : options_(options),
        weights_(std::move(weights)),
        table_(with_timers(kernels)),
        team_(options.threads),
        limits_(krn::measure_limits(
            team_, {weights_.memory.floats(), weights_.memory.bytes() / sizeof(float)})) {}

  void run() {
    const eng::ModelConfig& c = weights_.config;
    std::printf(
        "%s  kernels %s  threads %zu  weights %.0f MB a step  peaks %.1f GB/s, %.0f "
        "GFLOPS\n",
        options_.model.c_str(), table_.name, options_.threads,
        static_cast<double>(weights_.matrix_bytes_per_token) / 1e6, limits_.bytes_per_second / 1e9,
        limits_.operations_per_second / 1e9);
    for (const std::size_t context : options_.contexts) {
      if (context > c.context_tokens) {
        std::printf("context %zu: the model's is %u\n", context, c.context_tokens);
        continue;
      }
      for (const std::size_t streams : options_.streams) measure("decode", streams, 1, context);
      measure("prefill", 1, std::min(kChunk, context), context);
    }
  }

 private:
  void measure(const char* what, std::size_t streams, std::size_t tokens, std::size_t context) {
    const Batch batch(streams, tokens, context);
    const eng::ModelConfig& c = weights_.config;
    krn::PagedKv kv{nullptr,         streams * batch.tables[0].size(),
                    c.num_layers,    c.num_kv_heads,
                    c.head_dim,      kBlockTokens,
                    options_.kv_type};
    const krn::AlignedBuffer memory =
        krn::AlignedBuffer::allocate(kv.num_blocks * krn::kv_block_bytes(kv));
    auto transformer = eng::Transformer::make(
        weights_, table_, team_, {std::max(streams * tokens, kChunk), streams, streams, context});
    if (memory.empty() || !transformer) {
      std::printf("context %zu: not enough memory\n", context);
      return;
    }
    std::memset(memory.data(), 0x11, memory.bytes());  // small normal numbers in every format
    kv.data = memory.floats();
    transformer->forward(batch.view(), kv);
    struct Repeat {
      double seconds;
      std::array<double, kKernels> share;  // of the time of all threads
    };
    std::vector<Repeat> repeats;
    for (int r = 0; r < options_.repeats; ++r) {
      for (auto& ns : spent) ns.store(0);
      const double begin = now_seconds();
      int times = 0;
      do {
        transformer->forward(batch.view(), kv);
        ++times;
      } while (now_seconds() - begin < 0.2);
      const double seconds = now_seconds() - begin;
      Repeat repeat{seconds / times, {}};
      for (std::size_t k = 0; k < kKernels; ++k)
        repeat.share[k] = static_cast<double>(spent[k].load()) / 1e9 /
                          (seconds * static_cast<double>(options_.threads));
      repeats.push_back(repeat);
    }
    std::ranges::sort(repeats, {}, &Repeat::seconds);
    const Repeat& median = repeats[repeats.size() / 2];
    const double count = static_cast<double>(streams * tokens);
    std::printf("%-7s context %6zu x %2zu  %8.1f tokens/s (%.1f..%.1f)", what, context, streams,
                count / median.seconds, count / repeats.back().seconds,
                count / repeats.front().seconds);
    double rest = 1;
    for (std::size_t k = 0; k < kKernels; ++k) {
      rest -= median.share[k];
      if (k <= kAttend || median.share[k] >= 0.005)
        std::printf("  %s %.1f %%", kNames[k], 100 * median.share[k]);
    }
    std::printf("  rest %.1f %%", 100 * rest);
    // What the two that read memory reach while they run.
    const double matmul = median.seconds * median.share[kMatmul];
    const double attend = median.seconds * median.share[kAttend];
    if (tokens == 1) {
      const double weights = static_cast<double>(weights_.matrix_bytes_per_token);
      const double cached = static_cast<double>(streams * context) *
                            static_cast<double>(krn::kv_block_bytes(kv) / kBlockTokens);
      std::printf("  (weights %.1f GB/s, KV %.1f GB/s)", weights / matmul / 1e9,
                  cached / attend / 1e9);
    }
    std::printf("\n");
    std::fflush(stdout);
  }

  Options options_;
  eng::ModelWeights weights_;
  krn::KernelTable table_;
  krn::ThreadPool team_;
  krn::MachineLimits limits_;
};

[[noreturn]] void usage(const char* program) {
  std::fprintf(stderr,
               "usage: %s --model FILE [--contexts N,N,...] [--threads N] [--repeats N] [--streams "
               "N,N,...] [--kv-type f32|f16|int8] [--kernels NAME]\n",
               program);
  std::exit(2);
}

// "N,N,...", each from 1 to `most`.
std::vector<std::size_t> numbers(const std::string& text, std::size_t most, const char* program) {
  std::vector<std::size_t> all;
  for (const char* at = text.c_str(); *at != '\0';) {
    char* end = nullptr;
    all.push_back(std::clamp<std::size_t>(std::strtoul(at, &end, 10), 1, most));
    if (end == at) usage(program);
    at = *end == ',' ? end + 1 : end;
  }
  return all;
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i += 2) {
    if (i + 1 == argc) usage(argv[0]);
    const std::string flag = argv[i], value = argv[i + 1];
    const std::size_t number = std::strtoul(value.c_str(), nullptr, 10);
    if (flag == "--model") {
      options.model = value;
    } else if (flag == "--threads") {
      options.threads = std::clamp<std::size_t>(number, 1, 64);
    } else if (flag == "--streams") {
      options.streams = numbers(value, 256, argv[0]);
    } else if (flag == "--repeats") {
      options.repeats = static_cast<int>(std::clamp<std::size_t>(number, 1, 100));
    } else if (flag == "--kernels") {
      options.kernels = value;
    } else if (flag == "--kv-type") {
      options.kv_type = value == "int8"  ? krn::KvType::int8
                        : value == "f16" ? krn::KvType::f16
                                         : krn::KvType::f32;
    } else if (flag == "--contexts") {
      options.contexts = numbers(value, 1u << 20, argv[0]);
    } else {
      usage(argv[0]);
    }
  }
  if (options.model.empty()) usage(argv[0]);
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  const krn::KernelTable* kernels = krn::find_kernels(options.kernels.c_str());
  if (kernels == nullptr) {
    std::fprintf(stderr, "error: no kernels '%s' on this CPU\n", options.kernels.c_str());
    return 1;
  }
  eng::LoadOptions load;
  load.threads = options.threads;
  const double begin = now_seconds();
  auto weights = eng::load_weights(options.model, load);
  if (!weights) {
    std::fprintf(stderr, "error: %s\n", weights.error().detail.c_str());
    return 1;
  }
  std::printf("loaded in %.2f s\n", now_seconds() - begin);
  Bench(options, std::move(*weights), *kernels).run();
  return 0;
}
