// The CUDA backend's kernels against the CPU's in double: every entry of the op table, and the masks bit for bit.
#include <gtest/gtest.h>

#include "op_runner.h"
#include "ops/cuda/backend.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

struct Case {
  const OpCase* op;
  DType dtype;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.op->name << ' ' << name_of(c.dtype); }

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const OpCase& op : ops_table())
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64}) all.push_back({&op, dtype});
  return all;
}

struct Tolerances {
  double relative, zero_gradient;
};

Tolerances tolerances(DType dtype) {
  if (dtype == DType::f64) return {kDoubleTolerance, kZeroGradientTolerance};
  if (dtype == DType::f32) return {kLayerTolerance, kZeroGradientTolerance};
  if (dtype == DType::f16) return {kHalfLayerTolerance, kHalfZeroGradientTolerance};
  return {kBfloat16LayerTolerance, kBfloat16ZeroGradientTolerance};
}

class CudaOpTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << cuda_problem();
  }
  static void expect_close(const OpRun& actual, const OpRun& expected) {
    const auto [tolerance, zero] = tolerances(GetParam().dtype);
    for (size_t o = 0; o < expected.outputs.size(); ++o)
      EXPECT_TRUE(close(actual.outputs[o], expected.outputs[o], tolerance)) << "output " << o;
    for (size_t i = 0; i < expected.grads.size(); ++i)
      EXPECT_TRUE(close(actual.grads[i], expected.grads[i], tolerance, zero)) << "gradient of input " << i;
  }
};

TEST_P(CudaOpTest, MatchesTheCpuInDoubleAndRepeatsItself) {
  const OpCase& op = *GetParam().op;
  if (op.of_codes && !cuda_kernels().from_codes) GTEST_SKIP() << "weights are decoded when they are loaded";
  const std::vector<Doubles> inputs = draw_inputs(op, GetParam().dtype);
  Runner device(op, GetParam().dtype, cuda_kernels()), reference(op, DType::f64);
  const auto compare = [&](Slots slots) {
    const OpRun first = device.run(inputs, slots);
    expect_close(first, reference.run(inputs, slots));
    const OpRun second = device.run(inputs, slots);
    EXPECT_EQ(second.outputs, first.outputs) << "another run, another result";
    EXPECT_EQ(second.grads, first.grads) << "another run, another gradient";
  };
  compare(Slots::none);
  if (!op.differentiable) return;
  compare(Slots::garbage);
  if (!op.single_use) compare(Slots::ones);
}

INSTANTIATE_TEST_SUITE_P(Table, CudaOpTest, testing::ValuesIn(cases()), [](const testing::TestParamInfo<Case>& entry) {
  return entry.param.op->name + "_" + name_of(entry.param.dtype);
});

TEST(CudaKeepBits, AreTheCpus) {
  if (cuda_device_count() == 0) GTEST_SKIP() << cuda_problem();
  const RandomKey key{.seed = 5, .purpose = Purpose::dropout, .id = 17, .update = 9, .micro_batch = 3};
  for (const int64_t n : {1, 127, 128, 129, 1000, 100'000})
    for (const double p : {0.0, 1e-6, 0.1, 0.5, 0.999, 0.9999999}) {
      const auto count = static_cast<size_t>(keep_words(n));
      std::vector<uint64_t> expected(count), actual(count);
      cpu_kernels().keep_bits(expected.data(), n, p, key);
      const Buffer bits(count * sizeof(uint64_t), *cuda_kernels().memory);
      cuda_kernels().keep_bits(reinterpret_cast<uint64_t*>(bits.data()), n, p, key);
      cuda_kernels().download(actual.data(), bits.data(), bits.size());
      EXPECT_EQ(actual, expected) << n << " elements, p " << p;
    }
}

TEST(CudaTransfers, KeepTheOrderOfManySizes) {
  if (cuda_device_count() == 0) GTEST_SKIP() << cuda_problem();
  // Small uploads share a staging buffer that is used again and again; large ones go directly.
  const Buffer target(size_t{16} << 20, *cuda_kernels().memory);
  std::vector<uint32_t> host, back;
  for (uint32_t round = 0; round < 200; ++round) {
    host.assign(round % 20 == 19 ? size_t{2} << 20 : 1000 + 977 * (round % 50), round);
    cuda_kernels().upload(target.data(), host.data(), host.size() * sizeof(uint32_t));
    std::fill(host.begin(), host.end(), ~round);  // the host memory may be reused at once
    back.assign(host.size(), 0);
    if (round % 7 != 0) continue;
    cuda_kernels().download(back.data(), target.data(), back.size() * sizeof(uint32_t));
    EXPECT_EQ(std::count(back.begin(), back.end(), round), static_cast<int64_t>(back.size())) << round;
  }
}

}  // namespace
}  // namespace qn::test
