// Anonymous private mappings. Weights and KV memory are read end to end each step, where huge pages
// save most TLB misses.
#include "kernels/aligned_buffer.h"

#include <sys/mman.h>

#include <cstdint>

namespace sluice::krn {
namespace {

// Whole huge pages where it has some: the system then begins it at one.
std::size_t mapped_bytes(std::size_t bytes) {
  constexpr std::size_t kHugePage = 2u << 20;
  if (bytes < kHugePage || bytes > SIZE_MAX - kHugePage) return bytes;
  return (bytes + kHugePage - 1) / kHugePage * kHugePage;
}

}  // namespace

AlignedBuffer AlignedBuffer::allocate(std::size_t bytes) {
  AlignedBuffer buffer;
  if (bytes == 0) return buffer;
  const std::size_t mapped = mapped_bytes(bytes);
  void* data = ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return buffer;
  ::madvise(data, mapped, MADV_HUGEPAGE);  // a wish: without it everything works, slower
  buffer.data_ = data;
  buffer.bytes_ = bytes;
  return buffer;
}

AlignedBuffer::~AlignedBuffer() {
  if (data_ != nullptr) ::munmap(data_, mapped_bytes(bytes_));
}

}  // namespace sluice::krn
