// Opening, memory, and the failure that is kept.
#include "worker/cuda/device.h"

namespace sluice::eng {

Result<Device> Device::open(const krn::cuda::DeviceTable& table, int index) {
  std::string why;
  const int count = table.num_devices(why);
  if (count <= 0)
    return make_error(Errc::bad_config, "device: cuda: no device to be had: " + why, "device");
  if (index < 0 || index >= count) {
    return make_error(Errc::bad_config,
                      "device: cuda: there is no number " + std::to_string(index) + " among " +
                          std::to_string(count),
                      "device");
  }
  krn::cuda::DeviceContext* context = table.open(index, why);
  if (context == nullptr)
    return make_error(Errc::io_error, "device: cuda: it can't be opened: " + why, "device");
  return Device(table, context);
}

void* Device::checked(void* (*entry)(krn::cuda::DeviceContext&, std::size_t), std::size_t count,
                      std::size_t size, const char* what) {
  if (failed_) return nullptr;
  std::size_t bytes = 0;
  void* memory = nullptr;
  if (!__builtin_mul_overflow(count, size, &bytes) && bytes > 0) memory = entry(*context_, bytes);
  if (memory == nullptr) {
    fail(Errc::over_capacity, "it refuses " + std::to_string(count) + " x " + std::to_string(size) +
                                  " bytes for " + what);
  }
  return memory;
}

DeviceBuffer Device::allocate(std::size_t count, std::size_t size, const char* what) {
  return {*table_, *context_, checked(table_->allocate, count, size, what)};
}

HostBuffer Device::allocate_host(std::size_t count, std::size_t size, const char* what) {
  return {*table_, *context_, checked(table_->allocate_host, count, size, what)};
}

// Also after a failed launch: a device that still records does nothing else.
Result<Recording> Device::end_recording() {
  krn::cuda::DeviceRecording* recorded = nullptr;
  const std::string why = table_->end_recording(*context_, &recorded);
  Recording recording(*table_, *context_, recorded);
  if (!why.empty() && !failed_) fail(Errc::io_error, "end of a recording: " + why);
  if (failed_) return taken_error();
  return recording;
}

Error Device::taken_error() {
  failed_ = false;
  return std::exchange(error_, {});
}

void Device::fail(Errc code, std::string what) {
  failed_ = true;
  error_ = make_error(code, "device: cuda: " + std::move(what), "device");
}

Result<void> Device::check() const {
  if (failed_) return error_;
  return {};
}

Result<void> Device::synchronize() {
  run(table_->synchronize, "synchronize");
  return check();
}

}  // namespace sluice::eng
