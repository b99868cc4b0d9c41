// Counts every operator new of the binary that links it: for tests that say "nothing is allocated
// here".
#pragma once

#include <cstddef>

namespace sluice::test {

bool counts_allocations();      // false where a sanitizer owns the allocator
std::size_t num_allocations();  // by all threads since the start

}  // namespace sluice::test
