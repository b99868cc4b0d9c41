// StepRecordings: the steps of a DeviceTransformer that came up lately, by what their launches
// depend on, each with its recording once it has one. Bounded: a new step displaces the one unused
// for longest. Recordings are looked for once per step: a few dozen of them in a plain list.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "worker/cuda/device.h"

namespace sluice::eng {

// Two steps of one shape are the same launches with the same arguments: all else that differs
// between steps lies in device memory.
struct StepShape {
  std::size_t num_tokens = 0;
  std::size_t num_read_rows = 0;
  std::size_t num_chunks = 0;  // of attention
  bool operator==(const StepShape&) const = default;
};

class StepRecordings {
 public:
  explicit StepRecordings(std::size_t shapes_max);

  // The recording of a shape that was noted, empty until somebody fills it; nullptr when there is
  // no such shape. Valid until the next note() or forget().
  Recording* find(const StepShape& shape);
  void note(const StepShape& shape);  // REQUIRES: not found
  void forget();                      // all of them, and notes no more

 private:
  struct Step {
    StepShape shape;
    Recording recording;
    std::uint64_t used_at = 0;  // number of the look that found it last
  };
  std::size_t shapes_max_;
  std::uint64_t num_looks_ = 0;
  std::vector<Step> steps_;
};

}  // namespace sluice::eng
