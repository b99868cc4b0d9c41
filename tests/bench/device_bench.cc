// What a CUDA device makes of a model: decode of so many streams behind a context, and prefill of
// one chunk, through ExecutorCuda as the engine calls it, logits on the host included. Beside it
// the limits that the same device shows: bytes written per second, FP32 operations of a large GEMM.
// Medians of some repeats with their range. KV behind the measured position is zero: attention
// takes as long over it.
//
//   device_bench --model PATH [--contexts 128,1024,4096] [--streams 1,8,32] [--repeats N]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

#include "tests/support/executor_driver.h"
#include "worker/executor_cuda.h"

namespace {

using namespace sluice;

constexpr std::size_t kChunk = 512;

struct Options {
  std::string model;
  std::vector<std::size_t> contexts{128, 1024, 4096};
  std::vector<std::size_t> streams{1, 8, 32};
  int repeats = 5;
};

double now_seconds() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

struct Timing {
  double best, median, worst;  // seconds of one call
};

template <class Call>
Timing measure(int repeats, const Call& call) {
  call();  // modules are loaded and kernels chosen here
  std::vector<double> seconds;
  for (int r = 0; r < repeats; ++r) {
    const double begin = now_seconds();
    int times = 0;
    do {
      call();
      ++times;
    } while (now_seconds() - begin < 0.1);
    seconds.push_back((now_seconds() - begin) / times);
  }
  std::ranges::sort(seconds);
  return {seconds.front(), seconds[seconds.size() / 2], seconds.back()};
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

// `streams` sequences that each compute their last `tokens` of `context` positions.
void print_row(eng::ExecutorCuda& executor, const char* what, std::size_t streams,
               std::size_t tokens, std::size_t context, int repeats) {
  const std::size_t blocks = test::blocks_for(context, executor.facts().block_tokens);
  if (blocks * streams > executor.facts().num_blocks || context > executor.facts().context_tokens) {
    std::printf("%-7s context %6zu  streams %3zu: more than the device holds\n", what, context,
                streams);
    return;
  }
  std::vector<test::DrivenSequence> sequences;
  for (std::size_t s = 0; s < streams; ++s) {
    test::DrivenSequence sequence;
    for (std::size_t t = 0; t < context; ++t)
      sequence.ids.push_back(static_cast<TokenId>(3 + (s * 131 + t * 17) % 200));
    sequence.blocks = test::consecutive_blocks(blocks, static_cast<std::uint32_t>(s * blocks));
    sequence.computed = static_cast<std::uint32_t>(context - tokens);
    sequences.push_back(std::move(sequence));
  }
  std::vector<eng::SequenceSpan> spans;
  for (const test::DrivenSequence& sequence : sequences) spans.push_back(sequence.span(tokens));
  const Timing pass = measure(repeats, [&] {
    if (const auto logits = executor.try_forward(spans); !logits) stop(logits.error().detail);
  });
  const auto count = static_cast<double>(streams * tokens);
  std::printf("%-7s context %6zu  streams %3zu  %9.1f tokens/s (%.1f..%.1f)  %.2f ms a step", what,
              context, streams, count / pass.median, count / pass.worst, count / pass.best,
              1e3 * pass.median);
  const eng::StepWork work = executor.last_work();
  std::printf("  %.0f GB/s, %.1f TFLOPS\n",
              static_cast<double>(work.bytes_moved) / pass.median / 1e9,
              static_cast<double>(work.operations) / pass.median / 1e12);
  std::fflush(stdout);
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
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i], value = argv[i + 1];
    if (flag == "--model") options.model = value;
    if (flag == "--contexts") options.contexts = numbers(value);
    if (flag == "--streams") options.streams = numbers(value);
    if (flag == "--repeats") options.repeats = std::clamp(std::atoi(value.c_str()), 1, 100);
  }
  if (options.model.empty() || options.contexts.empty() || options.streams.empty() ||
      argc % 2 == 0) {
    std::fprintf(stderr,
                 "usage: %s --model PATH [--contexts N,N,...] [--streams N,N,...] [--repeats N]\n",
                 argv[0]);
    std::exit(2);
  }
  return options;
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
  eng::ExecutorCudaOptions open_options;
  open_options.directory = options.model;
  open_options.num_blocks = 16384;
  open_options.sequences_max = 256;
  open_options.step_tokens_max = kChunk;
  const double begin = now_seconds();
  const auto executor = eng::ExecutorCuda::open(open_options, *table);
  if (!executor) stop(executor.error().detail);
  std::printf("%s: %s, loaded in %.1f s\n", options.model.c_str(),
              (*executor)->description().c_str(), now_seconds() - begin);
  for (const std::size_t context : options.contexts) {
    for (const std::size_t streams : options.streams)
      print_row(**executor, "decode", streams, 1, context, options.repeats);
    print_row(**executor, "prefill", 1, std::min(kChunk, context), context, options.repeats);
  }
  return 0;
}
