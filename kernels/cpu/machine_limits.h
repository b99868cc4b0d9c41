// MachineLimits: what this machine can do at most, measured. The engine's figures are held against
// it.
//
// measure_limits() takes a fixed amount of work, some 15 ms: float operations of the widest
// instruction set in registers, and reading 64 MiB (more than a core's share of the caches), each
// time other ones where there is so much memory: what the last level holds of 64 MiB made the
// bandwidth come out half as high again. The best of a few repeats, because neighbours only ever
// slow it down. A machine that is busy meanwhile looks weaker than it is.
#pragma once

#include <span>

#include "kernels/cpu/thread_pool.h"

namespace sluice::krn {

struct LimitProbe;

struct MachineLimits {
  double operations_per_second = 0;  // float multiplications and additions; 0: not known
  double bytes_per_second = 0;       // reading memory; 0: not known
};

// `memory`: to be read, with any contents, written by somebody before; where it is too small some
// is made for the purpose, which takes longer.
MachineLimits measure_limits(ThreadPool& team, std::span<const float> memory = {});

// The loops behind it (targets.h), of the widest set that this CPU has; nullptr without vectors.
const LimitProbe* usable_probe();

}  // namespace sluice::krn
