#include "device.h"

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

// Saves the callee's registers on the current stack, leaves its address in *save and goes on with stack `to`.
extern "C" void qn_switch_stack(void** save, void* to);
asm(R"(
.text
.globl qn_switch_stack
.type qn_switch_stack, @function
qn_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size qn_switch_stack, .-qn_switch_stack
)");

namespace qn::emulation {

Index thread_idx, block_idx;
dim3 block_dim, grid_dim;

namespace {

constexpr size_t kStackBytes = size_t{64} << 10;

/// A stack that runs the kernel's body for one thread after the other.
struct Fiber {
  std::unique_ptr<std::byte[]> stack = std::make_unique<std::byte[]>(kStackBytes);
  void* top = nullptr;
  Index thread{};
  bool finished = true;
};

/// Threads that wait here go on when `arrived` reaches the number expected.
struct Barrier {
  unsigned arrived = 0;
  std::vector<Fiber*> waiting;
};

std::vector<std::unique_ptr<Fiber>> all_fibers;
std::vector<Fiber*> idle;
std::deque<Fiber*> ready;
Fiber* running = nullptr;
void* scheduler = nullptr;
const std::function<void()>* kernel_body = nullptr;
unsigned alive = 0;
Barrier block_barrier;
std::array<Barrier, kMaxThreads / kWarp> warp_barriers;
std::array<std::array<std::byte, kExchangeBytes>, kMaxThreads> exchanged;
alignas(128) std::array<std::byte, kSharedLimit> shared;

void leave() { qn_switch_stack(&running->top, scheduler); }

void release(Barrier& barrier) {
  barrier.arrived = 0;
  // The last to wait goes on first: an order of threads that changes from barrier to barrier hides no missing one.
  ready.insert(ready.end(), barrier.waiting.rbegin(), barrier.waiting.rend());
  barrier.waiting.clear();
}

/// Threads that have ended do not hold up those at a barrier of the block.
void release_block_if_complete() {
  if (block_barrier.arrived > 0 && block_barrier.arrived >= alive) release(block_barrier);
}

void fiber_main() {
  for (;;) {
    (*kernel_body)();
    running->finished = true;
    --alive;
    release_block_if_complete();
    leave();
  }
}

Fiber* take_fiber() {
  if (idle.empty()) {
    Fiber& fiber = *all_fibers.emplace_back(std::make_unique<Fiber>());
    // As if it had been left by qn_switch_stack: six registers, the address to go on at, and what aligns the stack.
    auto* top = reinterpret_cast<uintptr_t*>((reinterpret_cast<uintptr_t>(fiber.stack.get()) + kStackBytes) & ~15UL);
    *--top = 0;
    *--top = reinterpret_cast<uintptr_t>(&fiber_main);
    for (int i = 0; i < 6; ++i) *--top = 0;
    fiber.top = top;
    idle.push_back(&fiber);
  }
  Fiber* fiber = idle.back();
  idle.pop_back();
  return fiber;
}

void wait_at(Barrier& barrier) {
  barrier.waiting.push_back(running);
  leave();
}

/// Lets a fiber run until it waits or its thread has ended.
void resume(Fiber* fiber) {
  thread_idx = fiber->thread;
  running = fiber;
  qn_switch_stack(&scheduler, fiber->top);
  if (fiber->finished) idle.push_back(fiber);
}

void run_block() {
  alive = block_dim.x * block_dim.y * block_dim.z;
  for (unsigned z = 0; z < block_dim.z; ++z)
    for (unsigned y = 0; y < block_dim.y; ++y)
      for (unsigned x = 0; x < block_dim.x; ++x) {
        Fiber* fiber = take_fiber();
        fiber->thread = {x, y, z};
        fiber->finished = false;
        resume(fiber);
      }
  while (!ready.empty()) {
    Fiber* fiber = ready.front();
    ready.pop_front();
    resume(fiber);
  }
  if (alive > 0) refuse("threads of a block wait for others that do not come");
}

unsigned linear_thread() { return thread_idx.x + block_dim.x * (thread_idx.y + block_dim.y * thread_idx.z); }

}  // namespace

void refuse(const char* why) {
  std::fprintf(stderr, "emulated CUDA: %s (grid %u %u %u, block %u %u %u)\n", why, grid_dim.x, grid_dim.y, grid_dim.z,
               block_dim.x, block_dim.y, block_dim.z);
  std::abort();
}

void run_kernel(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& body) {
  grid_dim = grid;
  block_dim = block;
  const unsigned threads = block.x * block.y * block.z;
  if (threads == 0 || threads > kMaxThreads || block.z > 64) refuse("a block of this size cannot be launched");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffU || grid.y > 65535 || grid.z > 65535)
    refuse("a grid of this size cannot be launched");
  if (shared_bytes > kSharedLimit) refuse("a block cannot have so much shared memory");
  kernel_body = &body;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        block_idx = {x, y, z};
        std::memset(shared.data(), 0xff, shared_bytes);
        run_block();
      }
}

void sync_threads() {
  if (++block_barrier.arrived == alive) return release(block_barrier);
  wait_at(block_barrier);
}

void sync_warp() {
  Barrier& barrier = warp_barriers[linear_thread() / kWarp];
  if (++barrier.arrived == kWarp) return release(barrier);
  wait_at(barrier);
}

std::byte* shared_memory() { return shared.data(); }

unsigned lane() { return linear_thread() % kWarp; }

const std::byte* exchange(const void* value, size_t bytes) {
  std::memcpy(exchanged[linear_thread()].data(), value, bytes);
  sync_warp();
  return exchanged[linear_thread() / kWarp * kWarp].data();
}

void end_exchange() { sync_warp(); }

}  // namespace qn::emulation
