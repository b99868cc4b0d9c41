// Anonymous private mappings. Weights and KV memory are read end to end each step, where huge pages
// save most TLB misses.
#include "kernels/aligned_buffer.h"

#include <sys/mman.h>

namespace sluice::krn {

AlignedBuffer AlignedBuffer::allocate(std::size_t bytes) {
  AlignedBuffer buffer;
  if (bytes == 0) return buffer;
  void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return buffer;
  ::madvise(data, bytes, MADV_HUGEPAGE);  // a wish: without it everything works, slower
  buffer.data_ = data;
  buffer.bytes_ = bytes;
  return buffer;
}

AlignedBuffer::~AlignedBuffer() {
  if (data_ != nullptr) ::munmap(data_, bytes_);
}

}  // namespace sluice::krn
