// Counts calls of operator new in the whole binary that links allocation_count.cc; tests look at
// differences.
#pragma once

#include <cstdint>

namespace sluice {
std::uint64_t allocation_count();
}  // namespace sluice
