// Scalar noise on modules: what passes compute, and what survives.
#include "compress/scalar_noise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "nn/state_dict.h"
#include "one_layer.h"
#include "quant/int_quantizer.h"

namespace qn::test {
namespace {

class ScalarNoiseOf : public testing::TestWithParam<std::tuple<int, RangeMethod>> {};

TEST_P(ScalarNoiseOf, RateOneAndEvaluationAreThePackedValueBitForBit) {
  const auto [bits, method] = GetParam();
  OneLayer net;
  net.start();
  Weight& w = *net.layer.weight;
  const auto quantizer = std::make_shared<IntQuantizer>(ScalarOptions{bits, method});
  const QuantizedTensor packed = quantizer->quantize(w.dense()->value.as<float>(), w.rows(), w.cols(), {});
  std::vector<float> decoded(static_cast<size_t>(w.rows() * w.cols()));
  quantizer->decode(packed, decoded.data());
  for (const double rate : {1.0, 0.4}) {
    w.set_representation(make_scalar_noise(w.dense(), {.grid = {bits, method}, .rate = rate}), w.dense());
    w.representation().begin_update(cpu_kernels(), 0);
    for (const bool training : {true, false}) {
      net.tape.restart(training ? kTraining : PassOptions{});
      const auto value = w.value(net.tape).value.span<float>();
      const bool all = rate == 1.0 || !training;
      EXPECT_EQ(std::equal(value.begin(), value.end(), decoded.begin()), all) << rate << " " << training;
    }
  }
  if (method == RangeMethod::tensor) {
    EXPECT_LE(std::set<float>(decoded.begin(), decoded.end()).size(), size_t{1} << bits);
  }
}

INSTANTIATE_TEST_SUITE_P(Grids, ScalarNoiseOf,
                         testing::Combine(testing::Values(2, 3, 4, 5, 6, 7, 8),
                                          testing::Values(RangeMethod::tensor, RangeMethod::channel,
                                                          RangeMethod::channel_affine, RangeMethod::histogram)));

TEST(ScalarNoise, SearchedRangesStayForSomeUpdatesAndAreSaved) {
  OneLayer net;
  net.start();
  Weight& w = *net.layer.weight;
  const ScalarNoiseOptions options{.grid = {2, RangeMethod::histogram}, .rate = 1.0, .range_updates = 4};
  w.set_representation(make_scalar_noise(w.dense(), options), w.dense());
  const auto state = [&](int64_t update) {
    w.representation().begin_update(cpu_kernels(), update);
    return w.representation().state();
  };
  const std::vector<float> first = state(0);
  ASSERT_EQ(first.size(), 2u);
  for (float& v : w.dense()->value.span<float>()) v *= 2.0f;
  EXPECT_EQ(state(1), first);
  EXPECT_EQ(state(3), first);
  net.tape.restart(kTraining);
  const std::vector<double> stale = to_doubles(w.value(net.tape).value);
  const double bound = 3.0 * static_cast<double>(first[0]);
  EXPECT_LE(*std::max_element(stale.begin(), stale.end()), bound) << "what is out of range becomes the bound";

  StateDict saved;
  save_module(net, saved);
  OneLayer resumed;
  resumed.start();
  Weight& r = *resumed.layer.weight;
  r.set_representation(make_scalar_noise(r.dense(), options), r.dense());
  load_module(resumed, saved);
  r.representation().begin_update(cpu_kernels(), 3);
  resumed.tape.restart(kTraining);
  EXPECT_EQ(to_doubles(r.value(resumed.tape).value), stale);

  // Evaluation searches at once, and training goes on with its own range.
  net.tape.restart({});
  EXPECT_NE(to_doubles(w.value(net.tape).value), stale);
  EXPECT_EQ(state(3), first);
  EXPECT_EQ(state(4)[0], 2.0f * first[0]);
}

TEST(ScalarNoise, ValuesOutsideASearchedRangeHaveNoGradient) {
  OneLayer net;
  net.start();
  Weight& w = *net.layer.weight;
  w.set_representation(make_scalar_noise(w.dense(), {.grid = {4, RangeMethod::histogram}, .rate = 0.5}), w.dense());
  w.representation().begin_update(cpu_kernels(), 0);
  w.dense()->value.as<float>()[7] = 100.0f;
  net.parameters().begin_gradients();
  net.tape.restart(kTraining);
  std::vector<float> x(40, 1.0f);
  const std::vector<int32_t> target = {2};
  cross_entropy(net.tape, net.layer(net.tape, {view_of(x.data(), {1, 40}), nullptr}), target);
  net.tape.backward();
  const float* gradient = w.dense()->slot.grad.as<float>();
  EXPECT_EQ(gradient[7], 0.0f);
  EXPECT_NE(gradient[8], 0.0f);
}

TEST(ScalarNoise, LeavesTheMasterAloneAndPassesTheGradientStraightThrough) {
  OneLayer net;
  net.start();
  Weight& w = *net.layer.weight;
  const std::vector<double> before = to_doubles(w.dense()->value);
  w.set_representation(make_scalar_noise(w.dense(), {.grid = {3, RangeMethod::tensor}, .rate = 0.5, .block = 8}),
                       w.dense());
  net.parameters().begin_gradients();
  net.tape.restart(kTraining);
  const Var value = w.value(net.tape);
  EXPECT_EQ(value.slot, &w.dense()->slot) << "the gradient is the master's";
  const auto noisy = value.value.span<float>();
  for (int64_t block = 0; block < w.rows() * w.cols() / 8; ++block) {  // blocks share their fate
    int64_t changed = 0;
    for (int64_t i = 8 * block; i < 8 * block + 8; ++i)
      changed += noisy[static_cast<size_t>(i)] != static_cast<float>(before[static_cast<size_t>(i)]) ? 1 : 0;
    EXPECT_TRUE(changed == 0 || changed >= 7) << block << ": " << changed;
  }
  EXPECT_EQ(to_doubles(w.dense()->value), before);
}

}  // namespace
}  // namespace qn::test
