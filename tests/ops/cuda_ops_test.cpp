// The CUDA backend's kernels against the CPU's in double: every entry of the op table, and the masks bit for bit.
#include <gmock/gmock.h>

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

/// Cases of the sizes that real models have; inputs are few, so that drawing them takes no time.
std::vector<OpCase> real_sizes() {
  std::vector<OpCase> all;
  const int64_t rows = 3072, width = 1024, ffn = 4096, words = 20000;
  const auto parameter = [](Shape shape) { return OpInput{.shape = shape, .parameter = true}; };
  for (const auto& [heads, time] : {std::pair<int64_t, int64_t>{8, 3072}, {16, 512}}) {
    const int64_t batch = rows / time, h = heads;
    for (const bool dropped : {false, true})
      all.push_back(
          {.name = "attention_dim" + std::to_string(width / h) + (dropped ? "_dropped" : ""),
           .inputs = {{{rows, 3 * width}}},
           .forward =
               [=](Tape& t, std::span<const Var> x) {
                 return std::vector{attention(t, x[0], batch, rows / batch, h, true, {dropped ? 0.1 : 0.0, 9})};
               },
           .training = dropped,
           .single_use = true});
  }
  const auto product = [&](int64_t in, int64_t out) {
    all.push_back({.name = "linear_" + std::to_string(in) + "_" + std::to_string(out),
                   .inputs = {{{rows, in}}, parameter({out, in}), parameter({out})},
                   .forward = [](Tape& t, std::span<const Var> x) {
                     return std::vector{linear(t, x[0], cast_to_compute(t, x[1]), x[2])};
                   }});
  };
  product(width, width);
  product(width, ffn);
  product(ffn, width);
  all.push_back({.name = "head",
                 .inputs = {{{rows, width}}, parameter({words, width}), parameter({2, width})},
                 .forward = [=](Tape& t, std::span<const Var> x) {
                   const Tensor sums = t.arena.tensor({rows}, DType::f64);
                   t.k.fill(sums, 0.0);
                   const std::array weights{cast_to_compute(t, x[1]), cast_to_compute(t, x[2])};
                   std::vector<int32_t> targets(rows);
                   for (size_t i = 0; i < targets.size(); ++i)
                     targets[i] = static_cast<int32_t>(i * 7919 % (words + 2));
                   std::vector<int32_t> order(rows);
                   std::iota(order.begin(), order.end(), 0);
                   const RowPart part{x[0], order};
                   const Var features = assemble_rows(t, rows, width, {&part, 1}, 0.02);  // so that logits are small
                   cross_entropy(t, sums, linear_concat(t, features, weights, {}, logit_columns(t, words + 2)),
                                 words + 2, targets, {});
                   return std::vector{Var{sums, nullptr}};
                 }});
  all.push_back(
      {.name = "layer_norm",
       .inputs = {{{rows, width}}, parameter({width}), parameter({width})},
       .forward = [](Tape& t, std::span<const Var> x) { return std::vector{layer_norm(t, x[0], x[1], x[2])}; }});
  all.push_back(
      {.name = "embedding", .inputs = {parameter({words, width})}, .forward = [=](Tape& t, std::span<const Var> x) {
         std::vector<int32_t> ids(rows);  // every second one is the same word
         for (size_t i = 0; i < ids.size(); ++i) ids[i] = i % 2 == 0 ? 5 : static_cast<int32_t>(i * 7919 % words);
         return std::vector{embedding(t, x[0], ids, 32.0, 1)};
       }});
  return all;
}

// Against the same backend in double, whose products and attention are other kernels; the table above has compared
// those with the CPU's.
TEST(CudaRealSizes, MatchTheSameInDouble) {
  if (cuda_device_count() == 0) GTEST_SKIP() << cuda_problem();
  if (cuda_fma_gflops() == 0.0) GTEST_SKIP() << "an emulated device would take hours";
  for (const OpCase& op : real_sizes()) {
    SCOPED_TRACE(op.name);
    const std::vector<Doubles> inputs = draw_inputs(op, DType::bf16);
    Runner device(op, DType::bf16, cuda_kernels()), reference(op, DType::f64, cuda_kernels());
    const OpRun first = device.run(inputs, Slots::fresh), expected = reference.run(inputs, Slots::fresh);
    for (size_t o = 0; o < expected.outputs.size(); ++o)
      EXPECT_TRUE(close(first.outputs[o], expected.outputs[o], kBfloat16LayerTolerance)) << "output " << o;
    for (size_t i = 0; i < expected.grads.size(); ++i)
      EXPECT_TRUE(close(first.grads[i], expected.grads[i], kBfloat16LayerTolerance)) << "gradient of input " << i;
    EXPECT_EQ(device.run(inputs, Slots::fresh).grads, first.grads) << "another run, another gradient";
  }
}

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

TEST(CudaGraphs, ARecordingThatFailsLeavesTheStreamUsable) {
  if (cuda_device_count() == 0) GTEST_SKIP() << cuda_problem();
  const Kernels& kernels = cuda_kernels();
  const OwnedTensor x({1000}, DType::f32, *kernels.memory);
  const auto values = [&] { return to_doubles(kernels, x.view()); };
  kernels.graphs->begin();
  kernels.fill(x.view(), 1.0);
  const auto waits = [&] { kernels.wait(kernels.mark()); };
  EXPECT_THAT(waits, testing::ThrowsMessage<Error>(testing::HasSubstr("cudaEventSynchronize")));
  kernels.graphs->abandon();
  kernels.fill(x.view(), 2.0);
  EXPECT_THAT(values(), testing::Each(2.0));
  kernels.graphs->begin();
  kernels.fill(x.view(), 3.0);
  void* graph = kernels.graphs->end();
  kernels.graphs->launch(graph, 0, 0);
  EXPECT_THAT(values(), testing::Each(3.0));
  kernels.graphs->release(graph);
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
