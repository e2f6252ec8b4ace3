#include "ops/profiled_kernels.h"

#include <utility>

#include "ops/kernel_list.h"
#include "ops/work.h"

namespace qn {
namespace {

const Kernels* inner_kernels = nullptr;

class OpTimer {
 public:
  OpTimer(Profiler* profiler, int32_t op, const Work& work)
      : profiler_(profiler), op_(op), work_(work), start_(profiler->now()) {}
  ~OpTimer() { profiler_->record_op(op_, start_, work_); }
  OpTimer(const OpTimer&) = delete;
  OpTimer& operator=(const OpTimer&) = delete;

 private:
  Profiler* profiler_;
  int32_t op_;
  Work work_;
  int64_t start_;
};

template <auto Kernel, int32_t Op>
struct Timed;

template <typename R, typename... A, R (*Kernels::*Kernel)(A...), int32_t Op>
struct Timed<Kernel, Op> {
  static R call(A... args) {
    const auto kernel = inner_kernels->*Kernel;
    Profiler* profiler = Profiler::active();
    if (profiler == nullptr) return kernel(std::forward<A>(args)...);
    const OpTimer timer(profiler, Op, WorkOf<Kernel>::of(args...));
    return kernel(std::forward<A>(args)...);
  }
};

#define QN_ENTRY(name) name##_op,
enum OpNumber : int32_t { QN_EACH_KERNEL(QN_ENTRY) };
#undef QN_ENTRY

}  // namespace

const Kernels& profiled_kernels(const Kernels& inner, Profiler& profiler) {
#define QN_ENTRY(name) #name,
  static constexpr const char* kNames[] = {QN_EACH_KERNEL(QN_ENTRY)};
#undef QN_ENTRY
#define QN_ENTRY(name) .name = Timed<&Kernels::name, name##_op>::call,
  static Kernels table{.backend = "profiled",
                       .memory = nullptr,
                       .transfer = nullptr,
                       .graphs = nullptr,
                       .from_codes = false,
                       QN_EACH_KERNEL(QN_ENTRY)};
#undef QN_ENTRY
  QN_ASSERT(&inner != &table);
  inner_kernels = &inner;
  table.memory = inner.memory;
  table.transfer = inner.transfer;
  table.from_codes = inner.from_codes;
  table.graphs = nullptr;  // a graph has no ops to time
  profiler.name_ops(kNames);
  return table;
}

}  // namespace qn
