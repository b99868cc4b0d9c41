// Launching the CUDA kernels from host code: plain pointers to device memory and a stream. Every
// call is asynchronous on the stream; errors come back as text, empty for success (argument errors
// at once, execution errors at the next synchronization).
#pragma once

#include <cstddef>
#include <string>

#include "kernels/cuda/args.h"

namespace sluice::krn::cuda {

// The CUDA types stay behind this: a stream and a cuBLAS handle bound to it.
struct DeviceContext;
DeviceContext* make_device_context(int device, std::string& error);  // nullptr on failure
void destroy_device_context(DeviceContext* context);
int num_devices();  // 0 without driver or device

void* device_allocate(std::size_t bytes);  // nullptr when out of memory
void device_free(void* memory);
std::string copy_to_device(DeviceContext&, void* device, const void* host, std::size_t bytes);
std::string copy_to_host(DeviceContext&, void* host, const void* device, std::size_t bytes);
std::string synchronize(DeviceContext&);

std::string launch_rms_norm(DeviceContext&, const RmsNormArgs&, std::size_t rows);
std::string launch_rope_store(DeviceContext&, const RopeStoreArgs&, std::size_t tokens);
std::string launch_attention_decode(DeviceContext&, const AttentionDecodeArgs&,
                                    std::size_t sequences);

// y[tokens, rows] = x[tokens, cols] * w[rows, cols]^T through cuBLAS; w in BF16 or FP32, x and y
// FP32 (for BF16 weights x is given as BF16). All row-major, dense. cuBLAS chooses its kernel by
// shape, so the order of sums may change with `tokens`: a backend that uses it declares continuity
// `tokens`.
std::string launch_matmul(DeviceContext&, const MatmulArgs&);

}  // namespace sluice::krn::cuda
