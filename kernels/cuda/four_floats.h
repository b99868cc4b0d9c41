// Four floats that a thread loads or stores at once.
#pragma once

namespace sluice::krn::cuda {

struct alignas(16) FourFloats {
  float at[4];
};

}  // namespace sluice::krn::cuda
