#include "guarded_kernels.h"

#include <sys/mman.h>

#include <map>
#include <utility>

#include "ops/kernel_list.h"

namespace qn::test {
namespace {

std::map<void*, size_t> blocks;

void protect(int access) {
  for (const auto& [block, bytes] : blocks)
    QN_ASSERT(mprotect(block, bytes, access) == 0, "mprotect of {} bytes", bytes);
}

void* allocate(size_t bytes) {
  void* block = mmap(nullptr, std::max<size_t>(bytes, 1), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  QN_ASSERT(block != MAP_FAILED, "mmap of {} bytes", bytes);
  blocks[block] = std::max<size_t>(bytes, 1);
  return block;
}

void release(void* block) {
  munmap(block, blocks.at(block));
  blocks.erase(block);
}

class Unlocked {
 public:
  Unlocked() { protect(PROT_READ | PROT_WRITE); }
  ~Unlocked() { protect(PROT_NONE); }
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;
};

template <auto Member>
struct Guarded;

template <typename R, typename... A, R (*Kernels::*Member)(A...)>
struct Guarded<Member> {
  static R call(A... args) {
    const Unlocked scope;
    return (cpu_kernels().*Member)(std::forward<A>(args)...);
  }
};

}  // namespace

const Kernels& guarded_kernels() {
  static const Memory memory{"guarded", allocate, release};
#define QN_ENTRY(name) .name = Guarded<&Kernels::name>::call,
  static const Kernels table{.backend = "guarded cpu",
                             .memory = &memory,
                             .transfer = &host_memory(),
                             .graphs = nullptr,
                             .from_codes = true,
                             QN_EACH_KERNEL(QN_ENTRY)};
#undef QN_ENTRY
  return table;
}

}  // namespace qn::test
