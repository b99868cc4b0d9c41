// The device table for CUDA: memory, copies, kernel launches, and the GEMM through cuBLAS.
#include "kernels/cuda/launch.h"

#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <memory>

#include "kernels/cuda/attention_decode.cuh"
#include "kernels/cuda/launch_checks.h"
#include "kernels/cuda/matvec.cuh"
#include "kernels/cuda/pointwise.cuh"
#include "kernels/cuda/rms_norm.cuh"
#include "kernels/cuda/rope_store.cuh"

namespace sluice::krn::cuda {

struct DeviceContext {
  cudaStream_t stream = nullptr;
  cublasHandle_t blas = nullptr;
  // Of cuBLAS: a fixed one makes its choices repeatable, and it allocates nothing in a recording.
  void* workspace = nullptr;
};

struct DeviceRecording {
  cudaGraphExec_t graph = nullptr;
};

namespace {

// What cuBLAS recommends for its largest architectures.
constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;

std::string text(cudaError_t code) {
  return code == cudaSuccess ? std::string() : std::string(cudaGetErrorString(code));
}

std::string text(cublasStatus_t code) {
  return code == CUBLAS_STATUS_SUCCESS ? std::string() : std::string(cublasGetStatusString(code));
}

int num_devices(std::string& reason) {
  int count = 0;
  reason = text(cudaGetDeviceCount(&count));
  if (!reason.empty()) return 0;
  if (count == 0) reason = "the driver sees no device";
  return count;
}

void close(DeviceContext* context) {
  if (!context) return;
  if (context->blas) cublasDestroy(context->blas);
  if (context->workspace) cudaFree(context->workspace);
  if (context->stream) cudaStreamDestroy(context->stream);
  delete context;
}

DeviceContext* open(int device, std::string& error) {
  auto context = std::make_unique<DeviceContext>();
  error = text(cudaSetDevice(device));
  // Apart from the default stream, whose use by anybody would end a recording.
  if (error.empty())
    error = text(cudaStreamCreateWithFlags(&context->stream, cudaStreamNonBlocking));
  if (error.empty()) error = text(cudaMalloc(&context->workspace, kWorkspaceBytes));
  if (error.empty()) error = text(cublasCreate(&context->blas));
  // The stream first: setting it resets the workspace.
  if (error.empty()) error = text(cublasSetStream(context->blas, context->stream));
  if (error.empty())
    error = text(cublasSetWorkspace(context->blas, context->workspace, kWorkspaceBytes));
  if (error.empty()) error = text(cublasSetAtomicsMode(context->blas, CUBLAS_ATOMICS_NOT_ALLOWED));
  if (error.empty()) error = text(cublasSetMathMode(context->blas, CUBLAS_PEDANTIC_MATH));
  if (error.empty()) return context.release();
  close(context.release());
  return nullptr;
}

void* allocate(DeviceContext&, std::size_t bytes) {
  void* memory = nullptr;
  if (cudaMalloc(&memory, bytes) == cudaSuccess) return memory;
  cudaGetLastError();  // else the next launch would report this failure as its own
  return nullptr;
}

void release(DeviceContext&, void* memory) {
  cudaFree(memory);
}

void* allocate_host(DeviceContext&, std::size_t bytes) {
  void* memory = nullptr;
  if (cudaMallocHost(&memory, bytes) == cudaSuccess) return memory;
  cudaGetLastError();  // as in allocate()
  return nullptr;
}

void release_host(DeviceContext&, void* memory) {
  cudaFreeHost(memory);
}

std::string clear(DeviceContext& context, void* memory, std::size_t bytes) {
  return text(cudaMemsetAsync(memory, 0, bytes, context.stream));
}

// From pageable memory the driver has taken its copy when the call returns.
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

// Calls that could wait for the device are refused to this thread until the end.
std::string begin_recording(DeviceContext& context) {
  std::string error =
      text(cudaStreamBeginCapture(context.stream, cudaStreamCaptureModeThreadLocal));
  if (!error.empty()) cudaGetLastError();  // as in allocate()
  return error;
}

std::string end_recording(DeviceContext& context, DeviceRecording** recording) {
  *recording = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  std::string error = text(cudaStreamEndCapture(context.stream, &graph));
  if (error.empty()) error = text(cudaGraphInstantiate(&executable, graph, 0));
  if (graph != nullptr) cudaGraphDestroy(graph);
  cudaGetLastError();  // as in allocate(): what failed in between does not fail what follows
  if (error.empty()) *recording = new DeviceRecording{executable};
  return error;
}

std::string replay(DeviceContext& context, DeviceRecording* recording) {
  return text(cudaGraphLaunch(recording->graph, context.stream));
}

void release_recording(DeviceContext&, DeviceRecording* recording) {
  cudaGraphExecDestroy(recording->graph);
  delete recording;
}

template <class Args>
std::string launch(DeviceContext& context, void (*kernel)(Args), const Args& args, std::size_t rows,
                   std::size_t heads, unsigned threads, std::size_t chunks = 1) {
  if (const char* why = wrong(args, rows)) return why;
  const dim3 grid(static_cast<unsigned>(rows), static_cast<unsigned>(heads),
                  static_cast<unsigned>(chunks));
  kernel<<<grid, threads, 0, context.stream>>>(args);
  return text(cudaGetLastError());
}

std::string gather(DeviceContext& context, const GatherArgs& args, std::size_t rows) {
  return launch(context, gather_kernel, args, rows, num_pieces(args.cols),
                piece_threads(args.cols));
}

std::string rms_norm(DeviceContext& context, const RmsNormArgs& args, std::size_t rows) {
  return launch(context, rms_norm_kernel, args, rows, 1, row_threads(args.dim));
}

std::string add_rms_norm(DeviceContext& context, const AddRmsNormArgs& args, std::size_t rows) {
  return launch(context, add_rms_norm_kernel, args, rows, 1, row_threads(args.dim));
}

std::string rope_store(DeviceContext& context, const RopeStoreArgs& args, std::size_t rows) {
  return launch(context, rope_store_kernel, args, rows, num_rope_pieces(args), kRopeThreads);
}

std::string attention_decode(DeviceContext& context, const AttentionDecodeArgs& args,
                             std::size_t rows) {
  std::string why = launch(context, attention_decode_kernel_of(args.kv.head_dim), args, rows,
                           args.num_heads, kAttentionThreads, args.num_chunks);
  if (!why.empty() || args.num_chunks == 1) return why;
  return launch(context, attention_join_kernel, args, rows, args.num_heads,
                whole_warps(args.kv.head_dim, kHeadDimMax));
}

std::string swiglu(DeviceContext& context, const SwigluArgs& args, std::size_t rows) {
  return launch(context, swiglu_kernel, args, rows, num_pieces(args.inner),
                piece_threads(args.inner));
}

std::string add(DeviceContext& context, const AddArgs& args, std::size_t rows) {
  return launch(context, add_kernel, args, rows, num_pieces(args.cols), piece_threads(args.cols));
}

// cuBLAS is column-major: y^T [rows, tokens] = w [rows, cols] * x^T [cols, tokens].
std::string matmul(DeviceContext& context, const MatmulArgs& args) {
  if (const char* why = wrong(args)) return why;
  if (is_matvec(args)) {
    const std::size_t blocks = (args.rows + kMatvecRows - 1) / kMatvecRows;
    const auto kernel = args.tokens == 1   ? matvec_kernel<1>
                        : args.tokens <= 4 ? matvec_kernel<4>
                                           : matvec_kernel<kMatvecTokens>;
    kernel<<<static_cast<unsigned>(blocks), kMatvecThreads, 0, context.stream>>>(args);
    return text(cudaGetLastError());
  }
  const float one = 1.0f, zero = 0.0f;
  const int rows = static_cast<int>(args.rows), cols = static_cast<int>(args.cols);
  return text(cublasGemmEx(context.blas, CUBLAS_OP_T, CUBLAS_OP_N, rows,
                           static_cast<int>(args.tokens), cols, &one, args.w, CUDA_R_32F, cols,
                           args.x, CUDA_R_32F, cols, &zero, args.y, CUDA_R_32F, rows,
                           CUBLAS_COMPUTE_32F_PEDANTIC, CUBLAS_GEMM_DEFAULT));
}

constexpr DeviceTable kTable = {"cuda",           num_devices,    open,         close,
                                allocate,         release,        clear,        allocate_host,
                                release_host,     copy_to_device, copy_to_host, synchronize,
                                begin_recording,  end_recording,  replay,       release_recording,
                                gather,           rms_norm,       add_rms_norm, rope_store,
                                attention_decode, swiglu,         add,          matmul};

}  // namespace
}  // namespace sluice::krn::cuda

// kDeviceModuleEntry.
extern "C" const sluice::krn::cuda::DeviceTable* sluice_cuda_device_table_5() {
  return &sluice::krn::cuda::kTable;
}
