// `sluice bench`: a load client for OpenAI-compatible servers over plain HTTP. `--help` lists its
// options; load_client.h says what is measured.
#pragma once

namespace sluice::bench {

// argv[0] is the command's name, options follow. Returns the exit status: 0 when every request was
// answered, 1 when some failed or the run could not be made, 2 for wrong options.
int run_bench(int argc, char** argv);

}  // namespace sluice::bench
