// Replaces the global operator new. In a file of its own: the compiler must not see new and delete
// beside their callers, or it pairs malloc with delete and warns.
#include "tests/support/counting_new.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace {
std::atomic<std::size_t> count{0};
}

void* operator new(std::size_t bytes) {
  count.fetch_add(1, std::memory_order_relaxed);
  if (void* const memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}

namespace sluice::test {

std::size_t num_allocations() {
  return count.load(std::memory_order_relaxed);
}

}  // namespace sluice::test
