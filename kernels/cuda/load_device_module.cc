// The only place that loads code at run time.
#include <dlfcn.h>

#include "kernels/cuda/launch.h"

namespace sluice::krn::cuda {
namespace {

std::string last_error() {
  const char* text = ::dlerror();
  return text == nullptr ? "unknown error of the loader" : text;
}

}  // namespace

// Never unloaded: the CUDA runtime keeps threads and handlers of its own.
const DeviceTable* load_device_module(const std::string& path, std::string& error) {
  void* module = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (module == nullptr) {
    error = last_error();
    return nullptr;
  }
  using Entry = const DeviceTable* (*)();
  const auto entry = reinterpret_cast<Entry>(::dlsym(module, kDeviceModuleEntry));
  if (entry == nullptr) {
    error = last_error();
    return nullptr;
  }
  return entry();
}

}  // namespace sluice::krn::cuda
