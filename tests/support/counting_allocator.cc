// Replaces the global allocation functions by counting ones.
#include "tests/support/counting_allocator.h"

#include <atomic>
#include <cstdlib>
#include <new>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLUICE_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SLUICE_SANITIZED 1
#endif
#endif

namespace sluice::test {
namespace {
std::atomic<std::size_t> allocations{0};  // a plain count, ordered with nothing
}  // namespace

#ifdef SLUICE_SANITIZED
bool counts_allocations() {
  return false;
}
#else
bool counts_allocations() {
  return true;
}
static void count_allocation() {
  allocations.fetch_add(1, std::memory_order_relaxed);
}
#endif

std::size_t num_allocations() {
  return allocations.load(std::memory_order_relaxed);
}

}  // namespace sluice::test

#ifndef SLUICE_SANITIZED
void* operator new(std::size_t bytes) {
  sluice::test::count_allocation();
  void* p = std::malloc(bytes == 0 ? 1 : bytes);
  if (p == nullptr) std::abort();
  return p;
}
void operator delete(void* p) noexcept {
  std::free(p);
}
void operator delete(void* p, std::size_t) noexcept {
  std::free(p);
}
#endif
