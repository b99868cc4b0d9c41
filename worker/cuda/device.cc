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

DeviceBuffer Device::allocate(std::size_t count, std::size_t size, const char* what) {
  if (failed_) return {};
  std::size_t bytes = 0;
  void* memory = nullptr;
  if (!__builtin_mul_overflow(count, size, &bytes) && bytes > 0)
    memory = table_->allocate(*context_, bytes);
  if (memory == nullptr) {
    fail(Errc::over_capacity, "it refuses " + std::to_string(count) + " x " + std::to_string(size) +
                                  " bytes for " + what);
    return {};
  }
  return {*table_, *context_, memory};
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
