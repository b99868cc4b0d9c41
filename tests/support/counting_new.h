// Counts calls of operator new in the whole binary. Link counting_new.cc into a test of its own.
#pragma once

#include <cstddef>

namespace sluice::test {

std::size_t num_allocations();  // since the start of the process, all threads

}  // namespace sluice::test
