// AlignedBuffer: a large piece of zeroed memory from mmap, aligned to a page, returned when the
// buffer dies. Pages appear when they are first touched; huge pages are asked for. Not for small
// things.
#pragma once

#include <cstddef>
#include <utility>

namespace sluice::krn {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // Empty on failure (the system refuses so much memory) and for zero bytes.
  static AlignedBuffer allocate(std::size_t bytes);
  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~AlignedBuffer();

  bool empty() const { return data_ == nullptr; }
  std::size_t bytes() const { return bytes_; }
  void* data() const { return data_; }
  float* floats() const { return static_cast<float*>(data_); }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace sluice::krn
