// What a CUDA device makes of a model: decode of so many streams behind a context, and prefill of
// one chunk, through ExecutorCuda as the engine calls it, logits on the host included. Beside it
// the limits that the same device shows: bytes written per second, FP32 operations of a large GEMM.
// Medians of some repeats with their range, steps replayed from a recording and launched one by one
// in turns (--plain: the latter alone). KV behind the measured position is zero: attention takes as
// long over it.
//
//   device_bench --model PATH [--contexts 128,1024,4096] [--streams 1,8,32] [--repeats N] [--plain]
//
// --random PATH in place of --model writes a random model of TinyLlama's layers there first: 2048
// tokens of vocabulary, 2 GB.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/executor_driver.h"
#include "tests/support/model_files.h"
#include "worker/executor_cuda.h"

namespace {

using namespace sluice;

constexpr std::size_t kChunk = 512;

struct Options {
  std::string model;
  std::vector<std::size_t> contexts{128, 1024, 4096};
  std::vector<std::size_t> streams{1, 8, 32};
  int repeats = 5;
  bool is_plain = false;
  bool is_random = false;
};

double now_seconds() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

struct Timing {
  double best, median, worst;  // seconds of one call
};

Timing summary(std::vector<double> seconds) {
  std::ranges::sort(seconds);
  return {seconds.front(), seconds[seconds.size() / 2], seconds.back()};
}

template <class Call>
double seconds_of(const Call& call) {
  const double begin = now_seconds();
  int times = 0;
  do {
    call();
    ++times;
  } while (now_seconds() - begin < 0.1);
  return (now_seconds() - begin) / times;
}

template <class Call>
Timing measure(int repeats, const Call& call) {
  call();  // modules are loaded and kernels chosen here
  std::vector<double> seconds;
  for (int r = 0; r < repeats; ++r) seconds.push_back(seconds_of(call));
  return summary(std::move(seconds));
}

[[noreturn]] void stop(const std::string& why) {
  std::fprintf(stderr, "error: %s\n", why.c_str());
  std::exit(1);
}

void must(const std::string& error) {
  if (!error.empty()) stop(error);
}

void print_limits(const krn::cuda::DeviceTable& table, int repeats) {
  std::string error;
  krn::cuda::DeviceContext* const context = table.open(0, error);
  if (context == nullptr) stop(error);
  constexpr std::size_t kBytes = std::size_t{2} << 30, kSide = 8192;
  void* const memory = table.allocate(*context, kBytes);
  if (memory == nullptr) stop("no 2 GiB of device memory");
  const Timing write = measure(repeats, [&] {
    must(table.clear(*context, memory, kBytes));
    must(table.synchronize(*context));
  });
  auto* const floats = static_cast<float*>(memory);
  const krn::cuda::MatmulArgs gemm{
      floats, floats + kSide * kSide, floats + 2 * kSide * kSide, kSide, kSide, kSide};
  const Timing multiply = measure(repeats, [&] {
    must(table.matmul(*context, gemm));
    must(table.synchronize(*context));
  });
  std::printf("limits: %.0f GB/s written, %.1f TFLOPS of an FP32 GEMM of 8192 (of zeros)\n",
              static_cast<double>(kBytes) / write.median / 1e9,
              2.0 * kSide * kSide * kSide / multiply.median / 1e12);
  table.release(*context, memory);
  table.close(context);
}

// One way to do the steps of a row.
struct Contender {
  const char* name;
  std::unique_ptr<eng::ExecutorCuda> executor;
};

struct Row {
  const char* what;
  std::size_t streams, tokens, context;  // each stream computes its last `tokens` of `context`
};

std::vector<test::DrivenSequence> sequences_of(const Row& row, std::size_t blocks) {
  std::vector<test::DrivenSequence> sequences;
  for (std::size_t s = 0; s < row.streams; ++s) {
    test::DrivenSequence sequence;
    for (std::size_t t = 0; t < row.context; ++t)
      sequence.ids.push_back(static_cast<TokenId>(3 + (s * 131 + t * 17) % 200));
    sequence.blocks = test::consecutive_blocks(blocks, static_cast<std::uint32_t>(s * blocks));
    sequence.computed = static_cast<std::uint32_t>(row.context - row.tokens);
    sequences.push_back(std::move(sequence));
  }
  return sequences;
}

void print_timing(const Row& row, const char* name, const Timing& pass, const eng::StepWork& work) {
  const auto count = static_cast<double>(row.streams * row.tokens);
  std::printf("%-7s context %6zu  streams %3zu  %-8s %9.1f tokens/s (%.1f..%.1f)  %.3f ms a step",
              row.what, row.context, row.streams, name, count / pass.median, count / pass.worst,
              count / pass.best, 1e3 * pass.median);
  std::printf("  %.0f GB/s, %.1f TFLOPS\n",
              static_cast<double>(work.bytes_moved) / pass.median / 1e9,
              static_cast<double>(work.operations) / pass.median / 1e12);
  std::fflush(stdout);
}

void print_row(const std::vector<Contender>& contenders, const Row& row, int repeats) {
  const WorkerFacts facts = contenders.front().executor->facts();
  const std::size_t blocks = test::blocks_for(row.context, facts.block_tokens);
  if (blocks * row.streams > facts.num_blocks || row.context > facts.context_tokens) {
    std::printf("%-7s context %6zu  streams %3zu: more than the device holds\n", row.what,
                row.context, row.streams);
    return;
  }
  const std::vector<test::DrivenSequence> sequences = sequences_of(row, blocks);
  std::vector<eng::SequenceSpan> spans;
  for (const test::DrivenSequence& sequence : sequences) spans.push_back(sequence.span(row.tokens));
  const auto step = [&](const Contender& contender) {
    const auto logits = contender.executor->try_forward(spans);
    if (!logits) stop(logits.error().detail);
  };
  std::vector<std::vector<double>> seconds(contenders.size());
  for (int r = -1; r < repeats; ++r) {  // the first round warms up, and makes the recording
    for (std::size_t c = 0; c < contenders.size(); ++c) {
      const double taken = seconds_of([&] { step(contenders[c]); });
      if (r >= 0) seconds[c].push_back(taken);
    }
  }
  for (std::size_t c = 0; c < contenders.size(); ++c)
    print_timing(row, contenders[c].name, summary(seconds[c]), contenders[c].executor->last_work());
}

std::vector<std::size_t> numbers(const std::string& list) {
  std::vector<std::size_t> values;
  for (const char* at = list.c_str(); *at != '\0';) {
    char* end = nullptr;
    values.push_back(std::clamp<std::size_t>(std::strtoul(at, &end, 10), 1, 1u << 20));
    if (end == at) return {};
    at = *end == ',' ? end + 1 : end;
  }
  return values;
}

Options parse(int argc, char** argv) {
  Options options;
  bool is_right = true;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--plain") {
      options.is_plain = true;
      continue;
    }
    const std::string value = i + 1 < argc ? argv[++i] : "";
    if (flag == "--model" || flag == "--random") {
      options.model = value;
      options.is_random = flag == "--random";
    } else if (flag == "--contexts") {
      options.contexts = numbers(value);
    } else if (flag == "--streams") {
      options.streams = numbers(value);
    } else if (flag == "--repeats") {
      options.repeats = std::clamp(std::atoi(value.c_str()), 1, 100);
    } else {
      is_right = false;
    }
  }
  if (options.model.empty() || options.contexts.empty() || options.streams.empty() || !is_right) {
    std::fprintf(stderr,
                 "usage: %s --model PATH | --random PATH [--contexts N,N,...] [--streams N,N,...] "
                 "[--repeats N] "
                 "[--plain]\n",
                 argv[0]);
    std::exit(2);
  }
  return options;
}

void write_model_of_tiny_llama(const std::string& directory) {
  test::RandomModel model;
  model.vocab_size = 2048;
  model.hidden_size = 2048;
  model.intermediate_size = 5632;
  model.num_layers = 22;
  model.num_heads = 32;
  model.num_kv_heads = 4;
  model.context_tokens = 4096;
  std::filesystem::create_directories(directory);
  test::write_random_model(directory, model);
}

std::vector<Contender> open_contenders(const Options& options,
                                       const krn::cuda::DeviceTable& table) {
  std::vector<Contender> contenders;
  for (const bool is_plain : {false, true}) {
    if (options.is_plain && !is_plain) continue;
    const char* const name = is_plain ? "plain" : "recorded";
    eng::ExecutorCudaOptions open_options;
    open_options.directory = options.model;
    open_options.num_blocks = 16384;
    open_options.sequences_max = 256;
    open_options.step_tokens_max = kChunk;
    if (is_plain) open_options.recordings_max = 0;
    const double begin = now_seconds();
    auto executor = eng::ExecutorCuda::open(open_options, table);
    if (!executor) stop(executor.error().detail);
    std::printf("%s: %s, %s, loaded in %.1f s\n", options.model.c_str(),
                (*executor)->description().c_str(), name, now_seconds() - begin);
    contenders.push_back({name, std::move(*executor)});
  }
  return contenders;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  std::string why;
  const krn::cuda::DeviceTable* const table =
      krn::cuda::load_device_module(SLUICE_CUDA_MODULE, why);
  if (table == nullptr) stop(why);
  if (table->num_devices(why) == 0) stop("no CUDA device here: " + why);
  print_limits(*table, options.repeats);
  if (options.is_random) write_model_of_tiny_llama(options.model);
  const std::vector<Contender> contenders = open_contenders(options, *table);
  for (const std::size_t context : options.contexts) {
    for (const std::size_t streams : options.streams)
      print_row(contenders, {"decode", streams, 1, context}, options.repeats);
    print_row(contenders, {"prefill", 1, std::min(kChunk, context), context}, options.repeats);
  }
  return 0;
}
