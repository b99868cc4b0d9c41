// Launches of the CUDA kernels, the cuBLAS GEMM, and the device memory they work on.
#include "kernels/cuda/launch.h"

#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <memory>

#include "kernels/cuda/attention_decode.cuh"
#include "kernels/cuda/rms_norm.cuh"
#include "kernels/cuda/rope_store.cuh"

namespace sluice::krn::cuda {

struct DeviceContext {
  cudaStream_t stream = nullptr;
  cublasHandle_t blas = nullptr;
};

namespace {

std::string text(cudaError_t code) {
  return code == cudaSuccess ? std::string() : std::string(cudaGetErrorString(code));
}

std::string text(cublasStatus_t code) {
  return code == CUBLAS_STATUS_SUCCESS ? std::string() : std::string(cublasGetStatusString(code));
}

}  // namespace

int num_devices() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

DeviceContext* make_device_context(int device, std::string& error) {
  auto context = std::make_unique<DeviceContext>();
  error = text(cudaSetDevice(device));
  if (error.empty()) error = text(cudaStreamCreate(&context->stream));
  if (error.empty()) error = text(cublasCreate(&context->blas));
  if (error.empty()) error = text(cublasSetStream(context->blas, context->stream));
  if (error.empty()) return context.release();
  destroy_device_context(context.release());
  return nullptr;
}

void destroy_device_context(DeviceContext* context) {
  if (!context) return;
  if (context->blas) cublasDestroy(context->blas);
  if (context->stream) cudaStreamDestroy(context->stream);
  delete context;
}

void* device_allocate(std::size_t bytes) {
  void* memory = nullptr;
  return cudaMalloc(&memory, bytes) == cudaSuccess ? memory : nullptr;
}

void device_free(void* memory) {
  cudaFree(memory);
}

std::string copy_to_device(DeviceContext& context, void* device, const void* host,
                           std::size_t bytes) {
  return text(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, context.stream));
}

std::string copy_to_host(DeviceContext& context, void* host, const void* device,
                         std::size_t bytes) {
  return text(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, context.stream));
}

std::string synchronize(DeviceContext& context) {
  return text(cudaStreamSynchronize(context.stream));
}

std::string launch_rms_norm(DeviceContext& context, const RmsNormArgs& args, std::size_t rows) {
  const dim3 grid(static_cast<unsigned>(rows));
  rms_norm_kernel<<<grid, kRmsNormThreads, 0, context.stream>>>(args);
  return text(cudaGetLastError());
}

std::string launch_rope_store(DeviceContext& context, const RopeStoreArgs& args,
                              std::size_t tokens) {
  const dim3 grid(static_cast<unsigned>(tokens));
  rope_store_kernel<<<grid, kRopeThreads, 0, context.stream>>>(args);
  return text(cudaGetLastError());
}

std::string launch_attention_decode(DeviceContext& context, const AttentionDecodeArgs& args,
                                    std::size_t sequences) {
  if (args.kv.head_dim > kHeadDimMax) return "head_dim is over the kernel's bound";
  const dim3 grid(static_cast<unsigned>(sequences), static_cast<unsigned>(args.num_heads));
  attention_decode_kernel<<<grid, kAttentionThreads, 0, context.stream>>>(args);
  return text(cudaGetLastError());
}

std::string launch_matmul(DeviceContext& context, const MatmulArgs& args) {
  // cuBLAS is column-major: y^T [rows, tokens] = w [rows, cols] * x^T [cols, tokens].
  const float one = 1.0f, zero = 0.0f;
  const cudaDataType type = args.is_bf16 ? CUDA_R_16BF : CUDA_R_32F;
  const int rows = static_cast<int>(args.rows), cols = static_cast<int>(args.cols);
  return text(cublasGemmEx(context.blas, CUBLAS_OP_T, CUBLAS_OP_N, rows,
                           static_cast<int>(args.tokens), cols, &one, args.w, type, cols, args.x,
                           type, cols, &zero, args.y, CUDA_R_32F, rows, CUBLAS_COMPUTE_32F,
                           CUBLAS_GEMM_DEFAULT));
}

}  // namespace sluice::krn::cuda
