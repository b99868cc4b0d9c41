// Device: one open device with its memory, over a DeviceTable. Calls are queued in order; the first
// failure is kept, everything after it does nothing, and check() or synchronize() tells. So a step
// reads as a list of calls with one test at its end, as the device itself works.
//
// DeviceBuffer owns a piece of device memory: never read or written by the host. HostBuffer owns
// page-locked memory of the host: untouched between a copy and synchronize(). Recording owns
// launches that are done as one. No run() allocates on the host while all goes well. One thread,
// the one that opened it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "kernels/cuda/launch.h"
#include "shared/result.h"

namespace sluice::eng {

// Something of the device's table, given back through `Release` when its owner goes.
template <class T, auto Release>
class DeviceOwned {
 public:
  DeviceOwned() = default;
  DeviceOwned(const krn::cuda::DeviceTable& table, krn::cuda::DeviceContext& context, T* thing)
      : table_(&table), context_(&context), thing_(thing) {}
  DeviceOwned(DeviceOwned&& other) noexcept
      : table_(other.table_),
        context_(other.context_),
        thing_(std::exchange(other.thing_, nullptr)) {}
  DeviceOwned& operator=(DeviceOwned&& other) noexcept {
    std::swap(table_, other.table_);
    std::swap(context_, other.context_);
    std::swap(thing_, other.thing_);
    return *this;
  }
  ~DeviceOwned() {
    if (thing_ != nullptr) (table_->*Release)(*context_, thing_);
  }

  T* data() const { return thing_; }
  float* floats() const { return static_cast<float*>(thing_); }
  std::uint32_t* words() const { return static_cast<std::uint32_t*>(thing_); }

 private:
  const krn::cuda::DeviceTable* table_ = nullptr;
  krn::cuda::DeviceContext* context_ = nullptr;
  T* thing_ = nullptr;
};

using DeviceBuffer = DeviceOwned<void, &krn::cuda::DeviceTable::release>;
using HostBuffer = DeviceOwned<void, &krn::cuda::DeviceTable::release_host>;
using Recording =
    DeviceOwned<krn::cuda::DeviceRecording, &krn::cuda::DeviceTable::release_recording>;

class Device {
 public:
  // bad_config: no device, or none of that index; io_error: it can't be opened.
  static Result<Device> open(const krn::cuda::DeviceTable& table, int index);

  const krn::cuda::DeviceTable& table() const { return *table_; }

  // [count, size] bytes; empty, and over_capacity is kept, when the product overflows or the device
  // refuses. `what` is for the message: "KV blocks".
  DeviceBuffer allocate(std::size_t count, std::size_t size, const char* what);
  HostBuffer allocate_host(std::size_t count, std::size_t size, const char* what);

  // Calls an entry of the table: run(table().add, "add", args, rows).
  template <class... Parameters, class... Arguments>
  void run(std::string (*entry)(krn::cuda::DeviceContext&, Parameters...), const char* name,
           const Arguments&... arguments) {
    if (failed_) return;
    const std::string why = entry(*context_, arguments...);
    if (!why.empty()) fail(Errc::io_error, std::string(name) + ": " + why);
  }

  // What launches() runs is kept, not done: launches alone. An error is that of the recording; the
  // device works on.
  template <class Launches>
  Result<Recording> record(const Launches& launches) {
    if (failed_) return error_;
    run(table_->begin_recording, "begin of a recording");
    if (failed_) return taken_error();
    launches();
    return end_recording();
  }
  void replay(const Recording& recording) { run(table_->replay, "replay", recording.data()); }

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
  Result<Recording> end_recording();
  void* checked(void* (*entry)(krn::cuda::DeviceContext&, std::size_t), std::size_t count,
                std::size_t size, const char* what);
  void fail(Errc code, std::string what);
  Error taken_error();  // which is none any more

  const krn::cuda::DeviceTable* table_;
  std::unique_ptr<krn::cuda::DeviceContext, Close> context_;
  bool failed_ = false;
  Error error_;
};

}  // namespace sluice::eng
