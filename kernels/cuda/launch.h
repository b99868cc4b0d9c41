// DeviceTable: all that host code asks of a device, as function pointers without CUDA types:
// allocate, copy, launch, one GEMM. launch.cu fills it for CUDA; the tests fill it with the same
// kernel sources on the CPU, so that the code above it is the same in both.
//
// Every call works on the context's one stream, in order. Launches and copies may return before
// they are done: results are on the host after synchronize(). Errors are text, empty for success;
// those of the execution itself may come with a later call, synchronize() at the latest. A context
// belongs to the thread that opened it.
//
// The CUDA table lives in a module of its own, loaded when a model asks for it: cuBLAS costs each
// process that links it about 2 s of start and 200 MB.
#pragma once

#include <cstddef>
#include <string>

#include "kernels/cuda/args.h"

namespace sluice::krn::cuda {

struct DeviceContext;    // a stream and a cuBLAS handle bound to it
struct DeviceRecording;  // launches that are done as one

struct DeviceTable {
  const char* name;  // part of the kernel path
  // 0 without driver or device; then `reason` says which.
  int (*num_devices)(std::string& reason);
  DeviceContext* (*open)(int device, std::string& error);  // nullptr on failure
  void (*close)(DeviceContext*);

  void* (*allocate)(DeviceContext&, std::size_t bytes);  // nullptr when refused
  void (*release)(DeviceContext&, void* memory);
  std::string (*clear)(DeviceContext&, void* memory, std::size_t bytes);  // to zero bytes
  // Page-locked host memory, which the device reads and writes by itself; nullptr when refused.
  void* (*allocate_host)(DeviceContext&, std::size_t bytes);
  void (*release_host)(DeviceContext&, void* memory);
  // The host memory may be reused as soon as the call returns, that of allocate_host() after
  // synchronize().
  std::string (*copy_to_device)(DeviceContext&, void* device, const void* host, std::size_t bytes);
  std::string (*copy_to_host)(DeviceContext&, void* host, const void* device, std::size_t bytes);
  std::string (*synchronize)(DeviceContext&);

  // Launches between begin and end are not done but kept with their arguments; replay() does them
  // all, in order. Only launches may come in between. end_recording() is owed after each begin that
  // succeeded, also when a launch failed: the context works on afterwards. `recording` is nullptr
  // on failure.
  std::string (*begin_recording)(DeviceContext&);
  std::string (*end_recording)(DeviceContext&, DeviceRecording** recording);
  std::string (*replay)(DeviceContext&, DeviceRecording* recording);
  void (*release_recording)(DeviceContext&, DeviceRecording* recording);

  std::string (*gather)(DeviceContext&, const GatherArgs&, std::size_t rows);
  std::string (*rms_norm)(DeviceContext&, const RmsNormArgs&, std::size_t rows);
  std::string (*add_rms_norm)(DeviceContext&, const AddRmsNormArgs&, std::size_t rows);
  std::string (*rope_store)(DeviceContext&, const RopeStoreArgs&, std::size_t rows);
  std::string (*attention_decode)(DeviceContext&, const AttentionDecodeArgs&, std::size_t rows);
  std::string (*swiglu)(DeviceContext&, const SwigluArgs&, std::size_t rows);
  std::string (*add)(DeviceContext&, const AddArgs&, std::size_t rows);
  // FP32 throughout: no TF32, no atomics, one stream with a workspace of its own, so that equal
  // calls give equal bits on one kind of GPU. Few tokens go through our own kernel, more through
  // cuBLAS, which chooses by shape, `tokens` included: a row's bits may change with its batch, and
  // so continuity is `tokens` (P2).
  std::string (*matmul)(DeviceContext&, const MatmulArgs&);
};

// Loads the module and returns its table, valid for the life of the process; nullptr with `error`
// when there is no such file, or a part of CUDA that it needs is missing.
const DeviceTable* load_device_module(const std::string& path, std::string& error);

// The file's name, and the function in it that gives the table: `const DeviceTable* ()`. The number
// counts the versions of DeviceTable and args.h, so that a stale module is refused.
inline constexpr char kDeviceModule[] = "sluice_cuda.so";
inline constexpr char kDeviceModuleEntry[] = "sluice_cuda_device_table_5";

}  // namespace sluice::krn::cuda
