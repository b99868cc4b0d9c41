// Fibers for the SIMT shim: one ucontext per thread of the running block, a scheduler that draws
// the next runnable one from a seed, and the two barriers (block and warp).
#include "tests/support/simt_shim.h"

#include <ucontext.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "shared/check.h"
#include "shared/random.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace sluice::simt {
namespace {

constexpr std::size_t kStackBytes = 64 << 10;
constexpr std::size_t kSharedBytes = 96 << 10;

enum class FiberState : std::uint8_t { runnable, at_block_barrier, at_warp_barrier, done };

struct Fiber {
  ucontext_t context{};
  std::byte* stack = nullptr;  // [kStackBytes], of the pool
  Coordinates coordinates;
  FiberState state = FiberState::runnable;
  std::uint64_t exchange[2] = {};       // double buffer: a lane may reach the next shuffle early
  std::uint32_t exchange_turn[2] = {};  // number of the shuffle that the word belongs to
  std::uint32_t num_shuffles = 0;
  std::size_t shared_cursor = 0;
#if defined(__SANITIZE_THREAD__)
  void* tsan_fiber = nullptr;
#endif
};

struct Warp {
  std::size_t num_live = 0;
  std::size_t num_waiting = 0;  // at a shuffle
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  std::vector<std::size_t> runnable;  // indices of fibers, in no meaningful order
  std::size_t num_live = 0;
  std::size_t num_waiting = 0;  // at __syncthreads
  std::vector<std::byte> shared;
  ucontext_t scheduler{};
  const void* scheduler_stack = nullptr;
  std::size_t scheduler_stack_bytes = 0;
#if defined(__SANITIZE_THREAD__)
  void* tsan_scheduler = nullptr;
#endif
  std::size_t running = 0;
  const std::function<void()>* body = nullptr;
};

// One launch runs at a time (see the header); the fibers find their block here. Stacks are kept
// from launch to launch: fresh ones would cost page faults for every thread of every launch.
Block* g_block = nullptr;
std::vector<std::unique_ptr<std::byte[]>> g_stacks;

std::byte* stack_of(std::size_t fiber) {
  while (g_stacks.size() <= fiber)
    g_stacks.push_back(std::make_unique_for_overwrite<std::byte[]>(kStackBytes));
  return g_stacks[fiber].get();
}

#if defined(__SANITIZE_THREAD__)
// The sanitizer's own fibers are kept, too: making one takes a hundred times as long as running it.
// Not for ever: bodies never return, so that each run leaves a frame on the fiber's shadow stack.
struct TsanFiber {
  void* fiber = nullptr;
  int runs = 0;
};
constexpr int kRunsOfTsanFiber = 1000;
std::vector<TsanFiber> g_tsan_fibers;

void* tsan_fiber_of(std::size_t index) {
  if (g_tsan_fibers.size() <= index) g_tsan_fibers.resize(index + 1);
  TsanFiber& kept = g_tsan_fibers[index];
  if (kept.fiber != nullptr && ++kept.runs < kRunsOfTsanFiber) return kept.fiber;
  if (kept.fiber != nullptr) __tsan_destroy_fiber(kept.fiber);
  kept = {__tsan_create_fiber(0), 0};
  return kept.fiber;
}
#endif

void switch_to_fiber(Block& block, std::size_t index) {
  Fiber& fiber = block.fibers[index];
  block.running = index;
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake_stack, fiber.stack, kStackBytes);
#endif
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(fiber.tsan_fiber, 0);
#endif
  CHECK(::swapcontext(&block.scheduler, &fiber.context) == 0);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
}

// Back to the scheduler; returns when the scheduler picks this fiber again.
void yield_as(FiberState state) {
  Block& block = *g_block;
  Fiber& fiber = block.fibers[block.running];
  fiber.state = state;
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(state == FiberState::done ? nullptr : &fake_stack,
                                 block.scheduler_stack, block.scheduler_stack_bytes);
#endif
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(block.tsan_scheduler, 0);
#endif
  CHECK(::swapcontext(&fiber.context, &block.scheduler) == 0);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack, &block.scheduler_stack, &block.scheduler_stack_bytes);
#endif
}

void fiber_main() {
  Block& block = *g_block;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &block.scheduler_stack, &block.scheduler_stack_bytes);
#endif
  (*block.body)();
  yield_as(FiberState::done);
  CHECK(false);  // a finished fiber is never resumed
}

// A fiber came back to the scheduler: counts it at its barrier, and wakes the fibers of a barrier
// that all live threads have reached now.
void settle(Block& block, std::size_t index) {
  const FiberState state = block.fibers[index].state;
  Warp& warp = block.warps[index / kWarpSize];
  if (state == FiberState::done) {
    --warp.num_live;
    --block.num_live;
  } else if (state == FiberState::at_warp_barrier) {
    ++warp.num_waiting;
  } else {
    ++block.num_waiting;
  }
  const auto wake = [&block](std::size_t begin, std::size_t end, FiberState waiting) {
    for (std::size_t i = begin; i < std::min(end, block.fibers.size()); ++i) {
      if (block.fibers[i].state != waiting) continue;
      block.fibers[i].state = FiberState::runnable;
      block.runnable.push_back(i);
    }
  };
  if (warp.num_waiting > 0 && warp.num_waiting == warp.num_live) {
    warp.num_waiting = 0;
    const std::size_t begin = index / kWarpSize * kWarpSize;
    wake(begin, begin + kWarpSize, FiberState::at_warp_barrier);
  }
  if (block.num_waiting > 0 && block.num_waiting == block.num_live) {
    block.num_waiting = 0;
    wake(0, block.fibers.size(), FiberState::at_block_barrier);
  }
}

LaunchOutcome run_block(Block& block, std::uint64_t seed) {
  for (std::uint32_t turn = 0; block.num_live > 0; ++turn) {
    if (block.runnable.empty()) {
      const std::size_t num_done = block.fibers.size() - block.num_live;
      return {false, "deadlock: " + std::to_string(block.num_waiting) +
                         " threads at __syncthreads, " +
                         std::to_string(block.num_live - block.num_waiting) + " at a shuffle, " +
                         std::to_string(num_done) + " have returned"};
    }
    std::size_t& pick = block.runnable[random_bits({seed, 0, 0}, turn) % block.runnable.size()];
    const std::size_t index = std::exchange(pick, block.runnable.back());
    block.runnable.pop_back();
    switch_to_fiber(block, index);
    settle(block, index);
  }
  return {};
}

void start_fibers(Block& block, Dim3 grid, Dim3 block_dim, Dim3 block_index) {
  block.warps.assign((block.fibers.size() + kWarpSize - 1) / kWarpSize, {});
  block.runnable.clear();
  block.num_live = block.fibers.size();
  block.num_waiting = 0;
  std::size_t i = 0;
  for (unsigned z = 0; z < block_dim.z; ++z)
    for (unsigned y = 0; y < block_dim.y; ++y)
      for (unsigned x = 0; x < block_dim.x; ++x, ++i) {
        Fiber& fiber = block.fibers[i];
        fiber.coordinates = {{x, y, z}, block_index, block_dim, grid};
        fiber.state = FiberState::runnable;
        block.runnable.push_back(i);
        ++block.warps[i / kWarpSize].num_live;
        fiber.exchange_turn[0] = fiber.exchange_turn[1] = 0;
        fiber.num_shuffles = 0;
        fiber.shared_cursor = 0;
        fiber.stack = stack_of(i);
        CHECK(::getcontext(&fiber.context) == 0);
        fiber.context.uc_stack.ss_sp = fiber.stack;
        fiber.context.uc_stack.ss_size = kStackBytes;
        fiber.context.uc_link = nullptr;
        ::makecontext(&fiber.context, fiber_main, 0);
#if defined(__SANITIZE_THREAD__)
        fiber.tsan_fiber = tsan_fiber_of(i);
#endif
      }
}

}  // namespace

const Coordinates& current() {
  return g_block->fibers[g_block->running].coordinates;
}

unsigned lane() {
  return static_cast<unsigned>(g_block->running % kWarpSize);
}

void sync_threads() {
  yield_as(FiberState::at_block_barrier);
}

std::uint64_t shuffle(std::uint64_t value, unsigned source_lane) {
  Block& block = *g_block;
  const std::size_t self = block.running;
  const std::size_t source = self / kWarpSize * kWarpSize + source_lane % kWarpSize;
  const std::uint32_t turn = ++block.fibers[self].num_shuffles;
  const std::uint32_t slot = turn % 2;
  block.fibers[self].exchange[slot] = value;
  block.fibers[self].exchange_turn[slot] = turn;
  yield_as(FiberState::at_warp_barrier);
  if (source >= block.fibers.size()) return value;
  const Fiber& other = block.fibers[source];
  return other.exchange_turn[slot] == turn ? other.exchange[slot] : value;
}

void* shared_memory(std::size_t bytes, std::size_t alignment) {
  Fiber& fiber = g_block->fibers[g_block->running];
  const std::size_t begin = (fiber.shared_cursor + alignment - 1) / alignment * alignment;
  CHECK(begin + bytes <= kSharedBytes);
  fiber.shared_cursor = begin + bytes;
  return g_block->shared.data() + begin;
}

LaunchOutcome launch(Dim3 grid, Dim3 block_dim, std::uint64_t seed,
                     const std::function<void()>& body) {
  CHECK(g_block == nullptr);
  Block block;
  block.fibers.resize(std::size_t{block_dim.x} * block_dim.y * block_dim.z);
  block.body = &body;
  g_block = &block;
#if defined(__SANITIZE_THREAD__)
  block.tsan_scheduler = __tsan_get_current_fiber();
#endif
  const std::uint64_t num_blocks = std::uint64_t{grid.x} * grid.y * grid.z;
  const std::uint64_t first = mix64(seed) % num_blocks;
  LaunchOutcome outcome;
  for (std::uint64_t i = 0; i < num_blocks && outcome.ok; ++i) {
    const std::uint64_t index = (first + i) % num_blocks;
    const Dim3 block_index{static_cast<unsigned>(index % grid.x),
                           static_cast<unsigned>(index / grid.x % grid.y),
                           static_cast<unsigned>(index / grid.x / grid.y)};
    block.shared.assign(kSharedBytes, std::byte{0xff});  // NaN as float
    start_fibers(block, grid, block_dim, block_index);
    outcome = run_block(block, mix64(seed ^ (index * 0x9e37ull)));
  }
  g_block = nullptr;
  return outcome;
}

}  // namespace sluice::simt
