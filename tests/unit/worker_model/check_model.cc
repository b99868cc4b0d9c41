// check_model MODEL EXPECTED.jsonl [KERNELS] [TOLERANCE]: a model given by path against
// expectations (scripts/make_tiny_model.py expect, or lines with first_top5_logits). A tool for
// trained models, which are not committed; exit code 0 when all logits and greedy ids agree.
#include <cstdio>
#include <cstdlib>

#include "tests/support/golden_model.h"
#include "worker/executor_cpu.h"

int main(int argc, char** argv) {
  if (argc < 3 || argc > 5) {
    std::fprintf(stderr, "usage: %s MODEL EXPECTED.jsonl [KERNELS] [TOLERANCE]\n", argv[0]);
    return 2;
  }
  sluice::eng::ExecutorCpuOptions options;
  options.directory = argv[1];
  options.num_blocks = 256;
  options.threads = 2;
  if (argc > 3) options.kernels = argv[3];
  const double tolerance = argc > 4 ? std::atof(argv[4]) : 1e-4;
  auto executor = sluice::eng::ExecutorCpu::open(options);
  if (!executor) {
    std::fprintf(stderr, "error: %s\n", executor.error().detail.c_str());
    return 1;
  }
  bool good = true;
  for (const sluice::test::Expectation& line : sluice::test::read_expectations(argv[2])) {
    const sluice::test::Comparison got = sluice::test::compare(**executor, line, 32);
    const bool same = got.finite && got.logit_error_max <= tolerance &&
                      got.greedy_equal == line.greedy_ids.size();
    good = good && same;
    std::printf("%s  prompt %zu  logit error %.2g  greedy %zu of %zu\n", same ? "ok  " : "FAIL",
                line.prompt_ids.size(), got.logit_error_max, got.greedy_equal,
                line.greedy_ids.size());
  }
  return good ? 0 : 1;
}
