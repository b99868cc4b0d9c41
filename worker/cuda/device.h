// Device: one open device with its memory, over a DeviceTable. Calls are queued in order; the first
// failure is kept, everything after it does nothing, and check() or synchronize() tells. So a step
// reads as a list of calls with one test at its end, as the device itself works.
//
// DeviceBuffer owns a piece of device memory: never read or written by the host. Neither allocates
// on the host while all goes well. One thread, the one that opened it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "kernels/cuda/launch.h"
#include "shared/result.h"

namespace sluice::eng {

class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(const krn::cuda::DeviceTable& table, krn::cuda::DeviceContext& context, void* memory)
      : table_(&table), context_(&context), memory_(memory) {}
  DeviceBuffer(DeviceBuffer&& other) noexcept
      : table_(other.table_),
        context_(other.context_),
        memory_(std::exchange(other.memory_, nullptr)) {}
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    std::swap(table_, other.table_);
    std::swap(context_, other.context_);
    std::swap(memory_, other.memory_);
    return *this;
  }
  ~DeviceBuffer() {
    if (memory_ != nullptr) table_->release(*context_, memory_);
  }

  void* data() const { return memory_; }
  float* floats() const { return static_cast<float*>(memory_); }
  std::uint32_t* words() const { return static_cast<std::uint32_t*>(memory_); }

 private:
  const krn::cuda::DeviceTable* table_ = nullptr;
  krn::cuda::DeviceContext* context_ = nullptr;
  void* memory_ = nullptr;
};

class Device {
 public:
  // bad_config: no device, or none of that index; io_error: it can't be opened.
  static Result<Device> open(const krn::cuda::DeviceTable& table, int index);

  const krn::cuda::DeviceTable& table() const { return *table_; }

  // [count, size] bytes; empty, and over_capacity is kept, when the product overflows or the device
  // refuses. `what` is for the message: "KV blocks".
  DeviceBuffer allocate(std::size_t count, std::size_t size, const char* what);

  // Calls an entry of the table: run(table().add, "add", args, rows).
  template <class... Parameters, class... Arguments>
  void run(std::string (*entry)(krn::cuda::DeviceContext&, Parameters...), const char* name,
           const Arguments&... arguments) {
    if (failed_) return;
    const std::string why = entry(*context_, arguments...);
    if (!why.empty()) fail(Errc::io_error, std::string(name) + ": " + why);
  }

  // The first failure since opening, if any.
  Result<void> check() const;
  // Waits for everything queued, then check().
  Result<void> synchronize();

 private:
  struct Close {
    const krn::cuda::DeviceTable* table;
    void operator()(krn::cuda::DeviceContext* context) const { table->close(context); }
  };
  Device(const krn::cuda::DeviceTable& table, krn::cuda::DeviceContext* context)
      : table_(&table), context_(context, Close{&table}) {}
  void fail(Errc code, std::string what);

  const krn::cuda::DeviceTable* table_;
  std::unique_ptr<krn::cuda::DeviceContext, Close> context_;
  bool failed_ = false;
  Error error_;
};

}  // namespace sluice::eng
