// A list, searched from its beginning.
#include "worker/cuda/step_recordings.h"

#include <algorithm>
#include <utility>

namespace sluice::eng {

StepRecordings::StepRecordings(std::size_t shapes_max) : shapes_max_(shapes_max) {
  steps_.reserve(shapes_max);
}

Recording* StepRecordings::find(const StepShape& shape) {
  ++num_looks_;
  const auto found = std::ranges::find(steps_, shape, &Step::shape);
  if (found == steps_.end()) return nullptr;
  found->used_at = num_looks_;
  return &found->recording;
}

void StepRecordings::note(const StepShape& shape) {
  if (shapes_max_ == 0) return;
  Step step{shape, {}, num_looks_};
  if (steps_.size() < shapes_max_) {
    steps_.push_back(std::move(step));
  } else {
    *std::ranges::min_element(steps_, {}, &Step::used_at) = std::move(step);
  }
}

void StepRecordings::forget() {
  steps_.clear();
  shapes_max_ = 0;
}

}  // namespace sluice::eng
