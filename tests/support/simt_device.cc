// Device memory by mmap and mprotect, launches by the SIMT shim.
#include "tests/support/simt_device.h"

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <string_view>
#include <vector>

#include "shared/check.h"
#include "tests/support/simt_shim.h"

#include "kernels/cuda/attention_decode.cuh"
#include "kernels/cuda/launch_checks.h"
#include "kernels/cuda/pointwise.cuh"
#include "kernels/cuda/rms_norm.cuh"
#include "kernels/cuda/rope_store.cuh"

namespace sluice::krn::cuda {
namespace {

constexpr std::size_t kPage = 4096;

//   | unreachable page | slack | memory ... | unreachable page |
struct Allocation {
  char* mapping = nullptr;
  std::size_t pages_bytes = 0;  // between the two unreachable pages
  std::size_t bytes = 0;        // of the memory, at the end of them
};

struct PendingRead {
  std::string_view source;
  std::size_t hash;  // of the source when the copy began
};

struct PendingCopy {
  void* host;
  const void* device;
  std::size_t bytes;
};

}  // namespace

struct DeviceRecording {
  std::vector<std::function<std::string()>> launches;
  bool is_spoilt = false;  // by a call that is no launch
};

struct DeviceContext {
  std::map<const char*, Allocation> allocations;  // by address of the memory
  std::map<const char*, std::vector<char>> host_allocations;
  std::vector<PendingCopy> pending;            // to the host
  std::vector<PendingRead> under_way;          // to the device, from page-locked memory
  std::unique_ptr<DeviceRecording> recording;  // while one is made
};

namespace {

test::SimtDeviceScript g_script;

bool is_failing() {
  return g_script.num_calls++ == g_script.failing_call;
}

constexpr char kScripted[] = "failed as the script says";
constexpr char kNoLaunch[] = "no launch, and a recording is being made";

// Of a call that is no launch.
bool spoils_recording(DeviceContext& context) {
  if (context.recording == nullptr) return false;
  context.recording->is_spoilt = true;
  return true;
}

// Opens all device memory for the time of one call, where it is hidden.
class Reachable {
 public:
  explicit Reachable(DeviceContext& context) : context_(context) {
    protect(PROT_READ | PROT_WRITE);
  }
  ~Reachable() { protect(PROT_NONE); }
  Reachable(const Reachable&) = delete;

 private:
  void protect(int rights) {
    if (!g_script.hides_memory) return;
    for (const auto& [address, a] : context_.allocations)
      CHECK(::mprotect(a.mapping + kPage, a.pages_bytes, rights) == 0);
  }
  DeviceContext& context_;
};

bool is_within_one(const DeviceContext& context, const void* memory, std::size_t bytes) {
  const char* address = static_cast<const char*>(memory);
  auto next = context.allocations.upper_bound(address);
  if (next == context.allocations.begin()) return false;
  --next;
  const std::size_t offset = static_cast<std::size_t>(address - next->first);
  return offset <= next->second.bytes && bytes <= next->second.bytes - offset;
}

int num_devices(std::string& reason) {
  if (is_failing()) {
    reason = kScripted;
    return 0;
  }
  if (g_script.num_devices == 0) reason = "this test has none";
  return g_script.num_devices;
}

DeviceContext* open(int, std::string& error) {
  if (is_failing()) {
    error = kScripted;
    return nullptr;
  }
  ++g_script.num_contexts;
  auto* context = new DeviceContext;
  context->pending.reserve(8);
  context->under_way.reserve(8);
  return context;
}

void close(DeviceContext* context) {
  // What lies on a device goes before it.
  CHECK(context->allocations.empty() && context->host_allocations.empty());
  CHECK(g_script.num_recordings == 0 && context->recording == nullptr);
  --g_script.num_contexts;
  delete context;
}

void* allocate(DeviceContext& context, std::size_t bytes) {
  if (is_failing() || spoils_recording(context)) return nullptr;
  if (bytes > g_script.bytes_max - g_script.num_bytes) return nullptr;
  Allocation a;
  a.bytes = bytes;
  a.pages_bytes = (bytes + kPage - 1) / kPage * kPage;
  void* mapping = ::mmap(nullptr, a.pages_bytes + 2 * kPage, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) return nullptr;
  a.mapping = static_cast<char*>(mapping);
  char* memory = a.mapping + kPage + a.pages_bytes - bytes;
  CHECK(::mprotect(a.mapping + kPage, a.pages_bytes, PROT_READ | PROT_WRITE) == 0);
  std::memset(memory, 0xff, bytes);  // NaN as float
  if (g_script.hides_memory) CHECK(::mprotect(a.mapping + kPage, a.pages_bytes, PROT_NONE) == 0);
  context.allocations.emplace(memory, a);
  ++g_script.num_allocations;
  g_script.num_bytes += bytes;
  return memory;
}

void release(DeviceContext& context, void* memory) {
  const auto found = context.allocations.find(static_cast<const char*>(memory));
  CHECK(found != context.allocations.end());
  --g_script.num_allocations;
  g_script.num_bytes -= found->second.bytes;
  ::munmap(found->second.mapping, found->second.pages_bytes + 2 * kPage);
  context.allocations.erase(found);
}

void* allocate_host(DeviceContext& context, std::size_t bytes) {
  if (is_failing() || spoils_recording(context)) return nullptr;
  std::vector<char> memory(bytes, '\xff');
  char* const address = memory.data();
  context.host_allocations.emplace(address, std::move(memory));
  ++g_script.num_allocations;
  return address;
}

void release_host(DeviceContext& context, void* memory) {
  CHECK(context.host_allocations.erase(static_cast<const char*>(memory)) == 1);
  --g_script.num_allocations;
}

std::string clear(DeviceContext& context, void* memory, std::size_t bytes) {
  if (is_failing()) return kScripted;
  if (spoils_recording(context)) return kNoLaunch;
  if (!is_within_one(context, memory, bytes)) return "outside of device memory";
  const Reachable reachable(context);
  std::memset(memory, 0, bytes);
  return {};
}

bool is_page_locked(const DeviceContext& context, std::string_view memory) {
  const auto next = context.host_allocations.upper_bound(memory.data());
  if (next == context.host_allocations.begin()) return false;
  const auto& [begin, bytes] = *std::prev(next);
  return memory.data() + memory.size() <= begin + bytes.size();
}

std::string copy_to_device(DeviceContext& context, void* device, const void* host,
                           std::size_t bytes) {
  if (is_failing()) return kScripted;
  if (spoils_recording(context)) return kNoLaunch;
  if (!is_within_one(context, device, bytes)) return "outside of device memory";
  const Reachable reachable(context);
  std::memcpy(device, host, bytes);
  const std::string_view source(static_cast<const char*>(host), bytes);
  if (is_page_locked(context, source))
    context.under_way.push_back({source, std::hash<std::string_view>{}(source)});
  return {};
}

std::string copy_to_host(DeviceContext& context, void* host, const void* device,
                         std::size_t bytes) {
  if (is_failing()) return kScripted;
  if (spoils_recording(context)) return kNoLaunch;
  if (!is_within_one(context, device, bytes)) return "outside of device memory";
  std::memset(host, 0xff, bytes);
  context.pending.push_back({host, device, bytes});
  return {};
}

std::string synchronize(DeviceContext& context) {
  if (is_failing()) return kScripted;
  if (spoils_recording(context)) return kNoLaunch;
  const Reachable reachable(context);
  for (const PendingCopy& copy : context.pending) std::memcpy(copy.host, copy.device, copy.bytes);
  context.pending.clear();
  const bool is_changed = std::ranges::any_of(context.under_way, [](const PendingRead& read) {
    return std::hash<std::string_view>{}(read.source) != read.hash;
  });
  context.under_way.clear();
  return is_changed ? "page-locked memory changed while it was copied" : "";
}

std::string begin_recording(DeviceContext& context) {
  if (is_failing()) return kScripted;
  if (spoils_recording(context)) return kNoLaunch;
  context.recording = std::make_unique<DeviceRecording>();
  return {};
}

std::string end_recording(DeviceContext& context, DeviceRecording** recording) {
  *recording = nullptr;
  const auto recorded = std::move(context.recording);
  if (recorded == nullptr) return "no recording to end";
  if (is_failing()) return kScripted;
  if (recorded->is_spoilt) return kNoLaunch;
  *recording = new DeviceRecording(std::move(*recorded));
  ++g_script.num_recordings;
  ++g_script.num_recorded;
  return {};
}

std::string replay(DeviceContext&, DeviceRecording* recording) {
  if (is_failing()) return kScripted;
  ++g_script.num_replays;
  for (const auto& launch : recording->launches)
    if (std::string why = launch(); !why.empty()) return why;
  return {};
}

void release_recording(DeviceContext&, DeviceRecording* recording) {
  --g_script.num_recordings;
  delete recording;
}

// Arguments are taken by value: a recording keeps those that it was made with.
template <class Work>
std::string do_or_record(DeviceContext& context, const Work& work) {
  if (context.recording == nullptr) return work();
  context.recording->launches.emplace_back(work);
  return {};
}

template <class Args>
std::string launch(DeviceContext& context, void (*kernel)(Args), const Args& args, std::size_t rows,
                   std::size_t heads, unsigned threads, std::size_t chunks = 1) {
  if (is_failing()) return kScripted;
  if (const char* why = wrong(args, rows)) return why;
  const simt::Dim3 grid{static_cast<unsigned>(rows), static_cast<unsigned>(heads),
                        static_cast<unsigned>(chunks)};
  return do_or_record(context, [&context, kernel, args, grid, threads] {
    const Reachable reachable(context);
    const std::uint64_t seed = g_script.order_seed + g_script.num_calls;
    return simt::launch(grid, {threads}, seed, [&] { kernel(args); }).error;
  });
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

std::string matmul(DeviceContext& context, const MatmulArgs& args) {
  if (is_failing()) return kScripted;
  if (const char* why = wrong(args)) return why;
  return do_or_record(context, [&context, args]() -> std::string {
    const Reachable reachable(context);
    for (std::size_t t = 0; t < args.tokens; ++t)
      for (std::size_t r = 0; r < args.rows; ++r) {
        float sum = 0;
        for (std::size_t k = 0; k < args.cols; ++k)
          sum = std::fma(args.w[r * args.cols + k], args.x[t * args.cols + k], sum);
        args.y[t * args.rows + r] = sum;
      }
    return {};
  });
}

constexpr DeviceTable kTable = {"simt",           num_devices,    open,         close,
                                allocate,         release,        clear,        allocate_host,
                                release_host,     copy_to_device, copy_to_host, synchronize,
                                begin_recording,  end_recording,  replay,       release_recording,
                                gather,           rms_norm,       add_rms_norm, rope_store,
                                attention_decode, swiglu,         add,          matmul};

}  // namespace
}  // namespace sluice::krn::cuda

namespace sluice::test {

SimtDeviceScript& simt_script() {
  return krn::cuda::g_script;
}

const krn::cuda::DeviceTable& simt_device_table() {
  return krn::cuda::kTable;
}

}  // namespace sluice::test
