// Every entry of the table is timed under its own name, and calls the entry it stands for.
#include "ops/profiled_kernels.h"

#include <gtest/gtest.h>

#include "ops/kernel_list.h"

namespace qn::test {
namespace {

/// A kernel that only counts, and a call of a table's entry with empty arguments.
template <auto Kernel>
struct Stub;

template <typename R, typename... A, R (*Kernels::*Kernel)(A...)>
struct Stub<Kernel> {
  static inline int64_t calls = 0;
  static R count(A...) {
    ++calls;
    return R();
  }
  static void call(const Kernels& table) { (table.*Kernel)(std::decay_t<A>{}...); }
};

const Kernels& stubs() {
#define QN_ENTRY(name) .name = Stub<&Kernels::name>::count,
  static const Kernels table{.backend = "stubs",
                             .memory = &host_memory(),
                             .transfer = &host_memory(),
                             .graphs = nullptr,
                             .from_codes = true,
                             QN_EACH_KERNEL(QN_ENTRY)};
#undef QN_ENTRY
  return table;
}

TEST(ProfiledKernels, EveryEntryIsTimedAndPassedOn) {
  Profiler profiler;
  const Kernels& table = profiled_kernels(stubs(), profiler);
  ASSERT_EQ(profiler.ops().size(), kKernels);
  const auto expect_one_call = [&](const char* name, int64_t stub_calls) {
    EXPECT_EQ(stub_calls, 1) << name;
    const OpTotals& op = profiler.ops()[static_cast<size_t>(profiler.events().back().op)];
    EXPECT_EQ(op.name, name);
    EXPECT_EQ(op.elsewhere.calls, 1) << name;
  };
#define QN_ENTRY(kernel)               \
  Stub<&Kernels::kernel>::call(table); \
  expect_one_call(#kernel, Stub<&Kernels::kernel>::calls);
  QN_EACH_KERNEL(QN_ENTRY)
#undef QN_ENTRY
  EXPECT_EQ(profiler.recorded_events(), static_cast<int64_t>(kKernels));
}

TEST(ProfiledKernels, OpsAddUpToTheirPhases) {
  Profiler profiler;
  const Kernels& k = profiled_kernels(cpu_kernels(), profiler);
  const OwnedTensor x({64, 64}, DType::f32), y({64, 64}, DType::f32);
  for (const Phase phase : {Phase::forward, Phase::backward, Phase::validation}) {
    const ProfileScope scope(phase);
    double squares = 1.0;
    for (int i = 0; i < 10; ++i) k.axpy(y.view(), x.view(), 1.0, 1);
    k.sum_of_squares(&squares, x.view());
    EXPECT_EQ(squares, 0.0);
  }
  int64_t of_ops = 0, of_phases = 0;
  for (const OpTotals& op : profiler.ops()) of_ops += op.elsewhere.ns + op.backward.ns;
  for (const PhaseTotal& phase : profiler.phases()) {
    of_phases += phase.ops_ns;
    EXPECT_LE(phase.ops_ns, phase.ns);
  }
  EXPECT_EQ(of_ops, of_phases);
  EXPECT_GT(of_ops, 0);
}

/// Work of the only call so far.
Work work_of(const Profiler& profiler, const std::string& name) {
  for (const OpTotals& op : profiler.ops())
    if (op.name == name) return op.elsewhere.work;
  return {};
}

TEST(ProfiledKernels, WorkFollowsFromShapes) {
  Profiler profiler;
  const Kernels& k = profiled_kernels(stubs(), profiler);
  const OwnedTensor x({4, 8}, DType::f32), bias({8}, DType::f32), table({100, 8}, DType::f32);
  k.matmul({.m = 3, .n = 5, .k = 7});
  EXPECT_EQ(work_of(profiler, "matmul").flops, 2.0 * 3 * 5 * 7);
  const AttentionArgs two_of_three = self_attention(2, 3, 2, 4, true);
  k.attention(x.view(), x.view(), x.view(), x.view(), two_of_three);
  EXPECT_EQ(work_of(profiler, "attention").flops, 2.0 * 2 * (2 * 2 * 4) * 6);  // 6 pairs of 3 positions
  k.attention_grad(x.view(), x.view(), x.view(), x.view(), x.view(), x.view(), x.view(), two_of_three);
  EXPECT_EQ(work_of(profiler, "attention_grad").flops, 2.0 * work_of(profiler, "attention").flops);
  k.axpy(x.view(), x.view(), 1.0, 1);
  EXPECT_EQ(work_of(profiler, "axpy").bytes, 3.0 * 128);
  k.gather_rows(x.view(), table.view(), nullptr, 1.0);
  EXPECT_EQ(work_of(profiler, "gather_rows").bytes, 2.0 * 128);
  k.layer_norm(x.view(), bias.view(), bias.view(), x.view(), bias.view(), bias.view(), 1e-5);
  EXPECT_EQ(work_of(profiler, "layer_norm").bytes, 2.0 * 128 + 4 * 32);
}

TEST(ProfiledKernels, WorkWithoutAProfiler) {
  const Kernels* table = nullptr;
  {
    Profiler profiler;
    table = &profiled_kernels(cpu_kernels(), profiler);
  }
  const OwnedTensor x({5}, DType::f32);
  table->fill(x.view(), 2.0);
  double squares = 1.0;
  table->sum_of_squares(&squares, x.view());
  EXPECT_EQ(squares, 20.0);
}

}  // namespace
}  // namespace qn::test
