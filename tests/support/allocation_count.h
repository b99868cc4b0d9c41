// Counts the calls of operator new in a test binary that links allocation_count.cc.
#pragma once

#include <cstddef>

namespace sluice::test {

std::size_t num_allocations();

}  // namespace sluice::test
