// Every kernel of the engine and the forward pass against this machine's measured limits: GFLOPS of
// the FMA peak (of quantized matmul: of the int8 peak), GB/s of the read bandwidth, tokens per
// second of seeded random models, single stream and batched. The vocabulary projection is a matmul
// of a large model's size; norms, RoPE, SwiGLU, sums and the reading of embeddings work on rows in
// the cache, so their GB/s may exceed the memory's; packing counts the bytes of the file. Each
// number is the median of some repeats with its range, limits and kernels from the same run. With
// one thread time is that thread's CPU time, so that neighbours on the machine count less; with
// more it is wall clock.
//
//   kernel_bench [--threads N] [--repeats N] [--kernels NAME] [--only PART]
//
// PART: probe, kernels (or one of matmul, attention, pointwise, pack), model.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

#include "kernels/aligned_buffer.h"
#include "kernels/cpu/machine_limits.h"
#include "kernels/cpu/targets.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/kernel_table.h"
#include "kernels/pack.h"
#include "tests/support/executor_driver.h"
#include "tests/support/model_files.h"
#include "worker/executor_cpu.h"

namespace {

using namespace sluice;

struct Options {
  std::size_t threads = 2;
  int repeats = 5;
  std::string kernels = "auto";
  std::string only;
};

struct Sample {
  double median, low, high;
};

double now_seconds(const Options& options) {
  timespec now{};
  clock_gettime(options.threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double seconds_of(const Options& options, int times, const std::function<void()>& work) {
  const double begin = now_seconds(options);
  for (int i = 0; i < times; ++i) work();
  return now_seconds(options) - begin;
}

// `amount` per second of work, repeated; work is run often enough to last some 50 ms.
Sample rate(double amount, const Options& options, const std::function<void()>& work) {
  int times = 1;
  while (seconds_of(options, times, work) < 0.05) times *= 2;
  std::vector<double> rates;
  for (int r = 0; r < options.repeats; ++r) {
    rates.push_back(amount * times / seconds_of(options, times, work));
  }
  std::sort(rates.begin(), rates.end());
  return {rates[rates.size() / 2], rates.front(), rates.back()};
}

void keep(float value) {
  asm volatile("" : : "x"(value) : "memory");
}

// Limits: the loops of machine_limits.h, longer and with ranges.
struct Limits {
  double gflops = 0;
  double gbytes = 0;
  double gops = 0;  // int8
};

Limits probe(const Options& options, krn::ThreadPool& team) {
  Limits limits;
  const krn::LimitProbe* const loops = krn::usable_probe();
  if (loops == nullptr) return limits;
  constexpr std::size_t kRounds = 1u << 20;
  const double flops = static_cast<double>(loops->operations_per_round * kRounds) *
                       static_cast<double>(options.threads);
  const Sample fma = rate(flops / 1e9, options, [&] {
    team.parallel_for(options.threads, 1, [&](std::size_t begin, std::size_t end) {
      for (; begin < end; ++begin) keep(loops->fma_chains(kRounds));
    });
  });
  const std::size_t bytes = std::size_t{1} << 30;
  const krn::AlignedBuffer buffer = krn::AlignedBuffer::allocate(bytes);
  std::fill(buffer.floats(), buffer.floats() + bytes / 4, 1.0f);
  const Sample read = rate(static_cast<double>(bytes) / 1e9, options, [&] {
    team.parallel_for(bytes >> 20, 1, [&](std::size_t begin, std::size_t end) {
      const float* from = buffer.floats() + (begin << 18);
      const std::size_t n = (end - begin) << 18;
      keep(loops->read_sum(from, n));
    });
  });
  std::printf("limit  FMA   %7.1f GFLOPS  (%.1f..%.1f)\n", fma.median, fma.low, fma.high);
  std::printf("limit  read  %7.2f GB/s    (%.2f..%.2f)\n", read.median, read.low, read.high);
  const double operations = static_cast<double>(loops->int8_operations_per_round * kRounds) *
                            static_cast<double>(options.threads);
  const Sample int8 = rate(operations / 1e9, options, [&] {
    team.parallel_for(options.threads, 1, [&](std::size_t begin, std::size_t end) {
      for (; begin < end; ++begin) keep(static_cast<float>(loops->int8_chains(kRounds)));
    });
  });
  std::printf("limit  int8  %7.1f GOPS    (%.1f..%.1f)\n", int8.median, int8.low, int8.high);
  limits = {fma.median, read.median, int8.median};
  return limits;
}

constexpr krn::WeightType kTypes[] = {
    krn::WeightType::f32,  krn::WeightType::bf16, krn::WeightType::f16,  krn::WeightType::q8_0,
    krn::WeightType::q4_0, krn::WeightType::q4_k, krn::WeightType::q5_k, krn::WeightType::q6_k};

const char* name_of(krn::WeightType type) {
  switch (type) {
    case krn::WeightType::f32:
      return "f32";
    case krn::WeightType::bf16:
      return "bf16";
    case krn::WeightType::f16:
      return "f16";
    case krn::WeightType::q8_0:
      return "q8_0";
    case krn::WeightType::q4_0:
      return "q4_0";
    case krn::WeightType::q4_k:
      return "q4_k";
    case krn::WeightType::q5_k:
      return "q5_k";
    case krn::WeightType::q6_k:
      return "q6_k";
  }
  return "?";
}

void bench_matmul(const Options& options, const krn::KernelTable& kernels, krn::ThreadPool& team,
                  const Limits& limits, std::size_t rows, std::size_t cols, krn::WeightType type) {
  const std::size_t bytes = krn::packed_bytes(rows, cols, type);
  const krn::AlignedBuffer panels = krn::AlignedBuffer::allocate(bytes);
  std::memset(panels.data(), 0x11, bytes);  // a small normal number in all formats
  const krn::PackedMatrix w{panels.data(), type, rows, cols};
  const std::size_t x_stride = krn::activation_stride(cols);
  const std::size_t y_stride = krn::activation_stride(rows);
  const std::size_t groups = krn::num_panels(rows) / 8;
  for (const std::size_t tokens : {1u, 8u, 16u, 32u, 256u}) {
    const std::vector<float> x(tokens * x_stride, 0.5f);
    std::vector<float> y(tokens * y_stride);
    const double flops = 2.0 * static_cast<double>(rows * cols * tokens);
    krn::MatmulJob job{w, x.data(), x_stride, tokens, y.data(), y_stride};
    std::vector<std::int32_t> quantized(krn::quantized_bytes(tokens, cols) / 4);
    if (krn::is_quantized(type)) job.quantized = quantized.data();
    job.unpacks_once = krn::unpacking_costs();
    constexpr std::size_t kColumns = 512;  // of x, as the engine cuts it
    const Sample got = rate(flops / 1e9, options, [&] {
      if (krn::is_quantized(type)) {
        team.parallel_for(cols / kColumns, 1, [&](std::size_t begin, std::size_t end) {
          kernels.quantize(job, begin * kColumns, end * kColumns, quantized.data());
        });
      }
      team.parallel_for(groups, 1, [&](std::size_t begin, std::size_t end) {
        kernels.matmul(job, begin * 8, end * 8);
      });
    });
    const double gbytes = got.median * 1e9 / flops * static_cast<double>(bytes) / 1e9;
    std::printf(
        "matmul %-4s %5zux%-5zu tokens %3zu  %7.1f GFLOPS (%.1f..%.1f) %3.0f %%  %6.2f GB/s %3.0f "
        "%%\n",
        name_of(type), rows, cols, tokens, got.median, got.low, got.high,
        100 * got.median / (krn::is_quantized(type) ? limits.gops : limits.gflops), gbytes,
        100 * gbytes / limits.gbytes);
  }
}

const char* name_of(krn::KvType type) {
  return type == krn::KvType::f32 ? "f32" : type == krn::KvType::f16 ? "f16" : "int8";
}

struct AttentionShape {
  std::size_t sequences, new_tokens, context;
  krn::KvType kv_type = krn::KvType::f32;
};

// 32 query heads over 4 of K and V, as TinyLlama has them.
void bench_attention(const Options& options, const krn::KernelTable& kernels, krn::ThreadPool& team,
                     const Limits& limits, const AttentionShape& shape) {
  constexpr std::size_t kHeads = 32;
  constexpr std::size_t kKvHeads = 4;
  constexpr std::size_t kHeadDim = 64;
  const auto [sequences, new_tokens, context, kv_type] = shape;
  krn::PagedKv kv{nullptr, sequences * context / 16, 1, kKvHeads, kHeadDim, 16, kv_type};
  const krn::AlignedBuffer memory =
      krn::AlignedBuffer::allocate(kv.num_blocks * krn::kv_block_bytes(kv));
  std::memset(memory.data(), 0x11, memory.bytes());  // a small normal number in all formats
  kv.data = memory.floats();
  std::vector<std::uint32_t> tables(kv.num_blocks);
  for (std::size_t i = 0; i < tables.size(); ++i) {
    tables[i] =
        static_cast<std::uint32_t>(i * 37 % tables.size());  // scattered: 37 is coprime to 2^n
  }
  const std::size_t stride = krn::activation_stride(kHeads * kHeadDim);
  const std::vector<float> q(sequences * new_tokens * stride, 0.1f);
  std::vector<float> out(q.size());
  std::vector<krn::AttentionSpan> spans;
  std::vector<krn::AttentionItem> items;
  for (std::size_t s = 0; s < sequences; ++s) {
    spans.push_back(
        {s * new_tokens, new_tokens, context - new_tokens, tables.data() + s * context / 16});
    for (std::uint32_t t = 0; t < new_tokens; t += 16) {
      for (std::uint32_t h = 0; h < kKvHeads; ++h) {
        items.push_back({static_cast<std::uint32_t>(s), h, t,
                         std::min<std::uint32_t>(t + 16, static_cast<std::uint32_t>(new_tokens))});
      }
    }
  }
  const krn::AttentionJob job{kv,     0,          kHeads, 0.125f,      q.data(),
                              stride, out.data(), stride, spans.data()};
  const double seen = static_cast<double>(context) - static_cast<double>(new_tokens - 1) / 2;
  const double flops = 4.0 * kHeads * kHeadDim * seen * static_cast<double>(sequences * new_tokens);
  const Sample got = rate(flops / 1e9, options, [&] {
    team.parallel_for(items.size(), 1, [&](std::size_t begin, std::size_t end) {
      for (; begin < end; ++begin) kernels.attend(job, items[begin]);
    });
  });
  const double bytes = static_cast<double>(memory.bytes());
  const double gbytes = got.median * 1e9 / flops * bytes / 1e9;
  std::printf(
      "attend %-4s sequences %2zu x %3zu tokens, context %5zu  %7.1f GFLOPS (%.1f..%.1f) %3.0f %%  "
      "%6.2f GB/s %3.0f %%\n",
      name_of(kv_type), sequences, new_tokens, context, got.median, got.low, got.high,
      100 * got.median / limits.gflops, gbytes, 100 * gbytes / limits.gbytes);
}

// `bytes` are what one call reads and writes; every thread works on rows of its own.
void bench_rows(const Options& options, krn::ThreadPool& team, const Limits& limits,
                const char* name, double bytes, const std::function<void(std::size_t)>& work) {
  constexpr std::size_t kCalls = 64;  // of a thread: a chunk is worth handing on
  const double amount = bytes * kCalls * static_cast<double>(options.threads) / 1e9;
  const Sample got = rate(amount, options, [&] {
    team.parallel_for(options.threads, 1, [&](std::size_t begin, std::size_t end) {
      for (; begin < end; ++begin)
        for (std::size_t i = 0; i < kCalls; ++i) work(begin);
    });
  });
  const double threads = static_cast<double>(options.threads);
  std::printf("%-28s %7.2f us a call  %7.2f GB/s (%.2f..%.2f) %4.0f %%\n", name,
              bytes / got.median / 1e3 * threads, got.median, got.low, got.high,
              100 * got.median / limits.gbytes);
}

// What the forward pass does with a row of TinyLlama's sizes.
void bench_pointwise(const Options& options, const krn::KernelTable& kernels, krn::ThreadPool& team,
                     const Limits& limits) {
  constexpr std::size_t kHidden = 2048;
  constexpr std::size_t kInner = 5632;
  constexpr std::size_t kStride = 2 * kInner;
  std::vector<float> x(options.threads * kStride, 0.5f);
  const std::vector<float> y(kStride, 0.25f);
  const std::vector<std::uint16_t> halves(kHidden, 0x2e66);  // 0.1
  const auto row = [&](std::size_t thread) { return x.data() + thread * kStride; };
  bench_rows(options, team, limits, "rms_norm 2048", kHidden * 12,
             [&](std::size_t t) { kernels.rms_norm(row(t), y.data(), row(t), kHidden, 1e-5f); });
  bench_rows(options, team, limits, "rope 36 heads of 64", 36 * 64 * 8, [&](std::size_t t) {
    kernels.rope(row(t), 36, 64, y.data(), y.data(), krn::RopePairing::half);
  });
  bench_rows(options, team, limits, "rope, interleaved", 36 * 64 * 8, [&](std::size_t t) {
    kernels.rope(row(t), 36, 64, y.data(), y.data(), krn::RopePairing::interleaved);
  });
  bench_rows(options, team, limits, "swiglu 5632", kInner * 12,
             [&](std::size_t t) { kernels.swiglu(row(t) + kInner, y.data(), row(t), kInner); });
  bench_rows(options, team, limits, "add 2048", kHidden * 12,
             [&](std::size_t t) { kernels.add(row(t), y.data(), kHidden); });
  bench_rows(options, team, limits, "embedding row, f16", kHidden * 6, [&](std::size_t t) {
    kernels.widen(halves.data(), krn::WeightType::f16, row(t), kHidden);
  });
}

// Rows of a file into panels, each thread its own matrix.
void bench_pack(const Options& options, krn::ThreadPool& team, const Limits& limits,
                krn::WeightType type) {
  constexpr std::size_t kRows = 64;
  constexpr std::size_t kCols = 2048;
  const std::size_t bytes = kRows * krn::row_bytes(kCols, type);
  const std::vector<char> source(bytes, 0x11);
  const std::size_t packed = krn::packed_bytes(kRows, kCols, type);
  const krn::AlignedBuffer panels = krn::AlignedBuffer::allocate(packed * options.threads);
  const std::string name = std::string("pack ") + name_of(type);
  bench_rows(options, team, limits, name.c_str(), static_cast<double>(bytes), [&](std::size_t t) {
    krn::pack_rows(source.data(), type, kRows, kCols, 0,
                   static_cast<char*>(panels.data()) + t * packed, type);
  });
}

// Decode of `streams` sequences at position ~256, and prefill of one prompt.
void bench_model(const Options& options, const Limits& limits, const char* name,
                 const test::RandomModel& model) {
  const test::TemporaryDirectory directory;
  test::write_random_model(directory.path(), model);
  eng::ExecutorCpuOptions open;
  open.directory = directory.path();
  open.threads = static_cast<std::uint32_t>(options.threads);
  open.kernels = options.kernels;
  open.num_blocks = 32 * 32;
  const double begin = now_seconds(options);
  const auto opened = eng::ExecutorCpu::open(open);
  CHECK(opened.has_value());
  eng::ExecutorCpu& executor = **opened;
  const double load = now_seconds(options) - begin;
  const double weight_bytes = static_cast<double>(executor.weights().matrix_bytes_per_token);
  std::printf("model  %s %s: %.1f M parameters, loaded in %.2f s\n", name, model.dtype.c_str(),
              static_cast<double>(executor.weights().num_parameters) / 1e6, load);
  for (const std::uint32_t streams : {1u, 8u, 32u}) {
    std::vector<test::DrivenSequence> sequences;
    for (std::uint32_t s = 0; s < streams; ++s) {
      sequences.push_back({std::vector<TokenId>(257, s + 1), test::consecutive_blocks(32, 32 * s)});
      const eng::SequenceSpan prompt = sequences[s].span(256, false);
      executor.forward({&prompt, 1});
      sequences[s].computed = 256;
    }
    std::vector<eng::SequenceSpan> spans;
    for (const test::DrivenSequence& sequence : sequences) spans.push_back(sequence.span(1));
    const Sample got = rate(streams, options, [&] { keep(executor.forward(spans)[0]); });
    const double gbytes = weight_bytes * got.median / streams / 1e9;
    std::printf(
        "  decode %2u streams  %8.1f tokens/s (%.1f..%.1f)  step %.2f ms  weights %6.2f GB/s %3.0f "
        "%%\n",
        streams, got.median, got.low, got.high, 1e3 * streams / got.median, gbytes,
        100 * gbytes / limits.gbytes);
  }
  const test::DrivenSequence prompt{std::vector<TokenId>(512, 3), test::consecutive_blocks(32)};
  const eng::SequenceSpan span = prompt.span(512);
  const Sample got = rate(512, options, [&] { keep(executor.forward({&span, 1})[0]); });
  const double gflops =
      2 * static_cast<double>(executor.weights().num_parameters) * got.median / 1e9;
  std::printf(
      "  prefill 512 tokens %8.1f tokens/s (%.1f..%.1f)  about %.0f GFLOPS of matrices %3.0f %%\n",
      got.median, got.low, got.high, gflops, 100 * gflops / limits.gflops);
}

test::RandomModel model_15m(const char* dtype) {
  return {.vocab_size = 4096,
          .hidden_size = 384,
          .intermediate_size = 1024,
          .num_layers = 8,
          .num_heads = 6,
          .num_kv_heads = 3,
          .context_tokens = 2048,
          .dtype = dtype,
          .seed = 1};
}

test::RandomModel model_100m(const char* dtype) {
  return {.vocab_size = 16384,
          .hidden_size = 768,
          .intermediate_size = 2048,
          .num_layers = 14,
          .num_heads = 12,
          .num_kv_heads = 4,
          .context_tokens = 2048,
          .dtype = dtype,
          .seed = 2};
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (i + 1 == argc) {
      std::fprintf(stderr, "usage: %s [--threads N] [--repeats N] [--kernels NAME] [--only PART]\n",
                   argv[0]);
      std::exit(2);
    }
    const std::string value = argv[++i];
    if (flag == "--threads") options.threads = std::strtoul(value.c_str(), nullptr, 10);
    if (flag == "--repeats") options.repeats = std::atoi(value.c_str());
    if (flag == "--kernels") options.kernels = value;
    if (flag == "--only") options.only = value;
  }
  options.threads = std::clamp<std::size_t>(options.threads, 1, 64);
  options.repeats = std::clamp(options.repeats, 1, 100);
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
  krn::ThreadPool team(options.threads);
  std::printf("kernels %s, threads %zu, repeats %d (median, range)\n", kernels->name,
              options.threads, options.repeats);
  const Limits limits = probe(options, team);
  const auto wants = [&](const char* part) {
    return options.only.empty() || options.only == "kernels" || options.only == part;
  };
  if (wants("matmul")) {
    for (const krn::WeightType type : kTypes)
      bench_matmul(options, *kernels, team, limits, 8192, 2048, type);
    bench_matmul(options, *kernels, team, limits, 1024, 384, krn::WeightType::f32);
    // The vocabulary projection.
    for (const krn::WeightType type : {krn::WeightType::f16, krn::WeightType::q8_0,
                                       krn::WeightType::q4_0, krn::WeightType::q6_k}) {
      bench_matmul(options, *kernels, team, limits, 32000, 2048, type);
    }
  }
  if (wants("attention")) {
    for (const krn::KvType type : {krn::KvType::f32, krn::KvType::f16, krn::KvType::int8}) {
      for (const AttentionShape& shape :
           {AttentionShape{1, 1, 128, type}, AttentionShape{1, 1, 4096, type},
            AttentionShape{32, 1, 1024, type}, AttentionShape{1, 256, 1024, type},
            AttentionShape{1, 256, 4096, type}}) {
        bench_attention(options, *kernels, team, limits, shape);
      }
    }
  }
  if (wants("pointwise")) bench_pointwise(options, *kernels, team, limits);
  if (wants("pack")) {
    for (const krn::WeightType type : kTypes) bench_pack(options, team, limits, type);
  }
  if (options.only.empty() || options.only == "model") {
    for (const char* dtype : {"F32", "BF16"}) {
      bench_model(options, limits, "15M", model_15m(dtype));
      bench_model(options, limits, "100M", model_100m(dtype));
    }
  }
  return 0;
}
