// How fast the worker's own part is: ns per step and per token of the engine on the canned
// executor, and us per row of the sampler. Each figure is the median (and range) of seven
// interleaved rounds, in CPU time of the thread. Run: build/release/bin/engine_bench Goals: 1.5 M
// tokens/s at 64 sequences and 1,000 vocabulary entries.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

#include "tests/support/worker_builders.h"

namespace sluice::eng {
namespace {

constexpr int kRounds = 7;

double cpu_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

struct Figure {
  std::string name;
  std::string unit;
  std::function<double()> measure;  // one round
  std::vector<double> rounds;
};

// Steady decoding of `batch` sequences; ns per token.
double engine_ns_per_token(std::uint32_t batch, float temperature) {
  CannedModel model = a_canned_model(1000);
  model.facts.context_tokens = 4096;
  model.facts.block_tokens = 16;
  model.facts.num_blocks = 16 * 1024;
  model.facts.sequences_max = batch;
  model.facts.step_tokens_max = 2048;
  CannedEngine e(model);
  const SystemClock clock;
  Engine engine(e.executor, clock, CannedEngine::limits_of(e.executor, ClassPolicy::separate, 0));
  for (std::uint64_t id = 1; id <= batch; ++id) {
    const Submission submission =
        Submission(id).prompt(100, id).output_max(900).temperature(temperature);
    if (!engine.scheduler().add(submission.view(), clock.now())) std::abort();
  }
  const auto run = [&](int num_steps) {
    std::uint64_t num_tokens = 0;
    for (int i = 0; i < num_steps; ++i) {
      engine.plan();
      num_tokens += engine.compute().num_tokens;
    }
    return num_tokens;
  };
  run(100);
  const double start = cpu_ns();
  const std::uint64_t num_tokens = run(700);
  return (cpu_ns() - start) / static_cast<double>(num_tokens);
}

// A row as language models give them: a few large logits, a bulk that is normal.
std::vector<float> model_like_row(std::uint32_t vocab_size) {
  std::vector<float> row(vocab_size);
  for (std::uint32_t i = 0; i < vocab_size; ++i) {
    const double u = random_unit({7, 0, i}, 0) + 1e-12;
    const double v = random_unit({7, 0, i}, 1);
    row[i] = static_cast<float>(3.0 * std::sqrt(-2.0 * std::log(u)) * std::cos(6.2831853 * v));
  }
  return row;
}

double sampler_us_per_row(std::uint32_t vocab_size, SamplingParams sampling) {
  Sampler sampler(vocab_size);
  const std::vector<float> row = model_like_row(vocab_size);
  const int num_rows = vocab_size > 10'000 ? 100 : 10'000;
  std::uint64_t sum = 0;
  const double start = cpu_ns();
  for (int i = 0; i < num_rows; ++i) {
    sampling.seed = static_cast<std::uint64_t>(i);
    sum += sampler.sample({row, sampling, {}, {}, {}, 0, 0}).token;
  }
  const double us = (cpu_ns() - start) / 1e3 / num_rows;
  return sum == ~0ull ? 0.0 : us;
}

std::vector<Figure> figures() {
  std::vector<Figure> all;
  for (const std::uint32_t batch : {1u, 64u, 256u})
    for (const float temperature : {0.0f, 1.0f})
      all.push_back({"engine batch " + std::to_string(batch) +
                         (temperature == 0.0f ? " greedy" : " temperature 1"),
                     "ns/token",
                     [=] { return engine_ns_per_token(batch, temperature); },
                     {}});
  for (const std::uint32_t vocab_size : {512u, 32'000u, 128'256u}) {
    const auto add = [&](const char* name, const SamplingParams& sampling) {
      all.push_back({"sampler " + std::to_string(vocab_size) + " " + name,
                     "us/row",
                     [=] { return sampler_us_per_row(vocab_size, sampling); },
                     {}});
    };
    SamplingParams sampling;
    sampling.temperature = 0.0f;
    add("greedy", sampling);
    sampling.temperature = 1.0f;
    add("temperature 1", sampling);
    sampling.wants_logprob = 1;
    add("temperature 1, logprob", sampling);
    sampling.wants_logprob = 0;
    sampling.top_p = 0.9f;
    add("top-p 0.9", sampling);
    sampling.top_p = 1.0f;
    sampling.top_k = 40;
    add("top-k 40", sampling);
  }
  return all;
}

void run_all() {
  std::vector<Figure> all = figures();
  for (int round = 0; round < kRounds; ++round)
    for (Figure& figure : all) figure.rounds.push_back(figure.measure());
  std::printf("row loops: %s\n", row_loops().name);
  for (Figure& figure : all) {
    std::ranges::sort(figure.rounds);
    const double median = figure.rounds[kRounds / 2];
    std::printf("%-40s %10.3f %s (%.3f-%.3f)", figure.name.c_str(), median, figure.unit.c_str(),
                figure.rounds.front(), figure.rounds.back());
    if (figure.unit == "ns/token") std::printf("  %.2f M tokens/s", 1e3 / median);
    std::printf("\n");
  }
}

}  // namespace
}  // namespace sluice::eng

int main() {
  sluice::eng::run_all();
}
