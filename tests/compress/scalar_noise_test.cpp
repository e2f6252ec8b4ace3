// Scalar noise and activation ranges on modules: what passes compute, what a packed file holds, and what survives.
#include "compress/scalar_noise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "compress/activation_ranges.h"
#include "compress/noise.h"
#include "compress/packed_model.h"
#include "compress/representation.h"
#include "models/golden_model.h"
#include "nn/layers/linear.h"
#include "nn/state_dict.h"
#include "quant/int_quantizer.h"
#include "support/capture.h"
#include "support/temp_dir.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

/// A linear map with places for its input and output.
class OneLayer : public Module {
 public:
  explicit OneLayer(int64_t out = 12, int64_t in = 40)
      : layer(Linear::build(root().in("net"), "fc", groups::kFfn, out, in, init::normal(0.3), init::zeros())) {}
  void start() {
    allocate(DType::f32, cpu_kernels());
    parameters().initialize(7);
  }
  std::vector<double> run(const std::vector<float>& x, const PassOptions& pass) {
    arena.reset();
    tape.restart(pass);
    const int64_t in = layer.weight->cols();
    return to_doubles(layer(tape, {view_of(x.data(), {std::ssize(x) / in, in}), nullptr}).value);
  }
  void quantize(const QuantizerOptions& options) {
    const auto quantizer = make_quantizer("int", options);
    const float* w = layer.weight->dense()->value.as<float>();
    RepresentationSwap swap(*this, CentroidGradient::sum);
    swap.replace(*layer.weight, quantizer->quantize(w, layer.weight->rows(), layer.weight->cols()));
    swap.finish();
  }

  Linear layer;
  Arena arena;
  Tape tape{cpu_kernels(), arena, DType::f32, {}};
};

std::vector<float> inputs(int64_t count, double scale = 1.0) {
  const RandomStream random({.seed = 3, .purpose = Purpose::test});
  std::vector<float> x;
  for (int64_t i = 0; i < count; ++i) x.push_back(static_cast<float>(scale * random.normal(static_cast<uint64_t>(i))));
  return x;
}

const PassOptions kTraining{.training = true, .recording = true, .seed = 5, .update = 3};

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

std::function<void(std::span<double>)> alone() {
  return [](std::span<double>) {};
}

TEST(ActivationRanges, AreSeenAveragedFrozenAndSaved) {
  OneLayer net;
  quantize_activations(net, {{"net.fc.input", 4}}, true);
  net.start();
  ActivationObserver& observer = *net.activations().observer();
  EXPECT_FALSE(observer.calibrated());
  std::vector<float> x(40, 0.0f);
  x[3] = -1.0f, x[5] = 3.0f;
  net.run(x, kTraining);
  x[7] = 5.0f;
  net.run(x, kTraining);
  observer.end_update(cpu_kernels(), alone());
  EXPECT_TRUE(observer.calibrated());
  const auto range = [](OneLayer& n) { return to_doubles(n.buffers().find("net.fc.input.range")->value.view()); };
  EXPECT_EQ(range(net), (std::vector<double>{-1, 5, 1})) << "both micro-batches of the update count";
  x[7] = 9.0f;
  net.run(x, kTraining);
  observer.end_update(cpu_kernels(), alone());
  EXPECT_EQ(range(net), (std::vector<double>{-1, 7, 2})) << "updates are averaged";
  x[7] = 100.0f;
  net.run(x, {});
  observer.end_update(cpu_kernels(), alone());
  EXPECT_EQ(range(net), (std::vector<double>{-1, 7, 2})) << "evaluation watches nothing";

  StateDict state;
  save_module(net, state);
  OneLayer other;
  quantize_activations(other, {{"net.fc.input", 4}}, true);
  other.allocate(DType::f32, cpu_kernels());
  load_module(other, state);
  EXPECT_EQ(other.run(x, {}), net.run(x, {}));
  std::vector<float> bound = x;
  bound[7] = 7.0f;
  EXPECT_EQ(net.run(x, {}), net.run(bound, {})) << "what is out of range becomes the bound";
}

// In double precision too, the state is what a file holds: floats.
TEST(ActivationRanges, AreFloatsInEveryPrecision) {
  OneLayer net;
  quantize_activations(net, {{"net.fc.input", 4}}, true);
  net.allocate(DType::f64, cpu_kernels());
  Arena arena;
  std::vector<double> x(static_cast<size_t>(net.layer.weight->cols()), 0.0);
  for (int update = 1; update <= 3; ++update) {
    x[3] = -0.1 * update, x[5] = 0.7 / update;  // no float equals them
    Tape tape(cpu_kernels(), arena, DType::f64, kTraining);
    (*net.layer.input)(tape, {view_of(x.data(), {1, std::ssize(x)}), nullptr});
    net.activations().observer()->end_update(cpu_kernels(), alone());
    for (const double value : to_doubles(net.buffers().find("net.fc.input.range")->value.view())) {
      volatile float rounded = static_cast<float>(value);
      EXPECT_EQ(value, static_cast<double>(rounded)) << "update " << update;
    }
  }
}

TEST(ActivationRanges, UnknownPlacesAreRefused) {
  OneLayer net;
  EXPECT_NE(error_of([&] {
              quantize_activations(net, {{"net.fc.inputs", 8}}, true);
            }).find("net.fc.input"),
            std::string::npos);
}

TEST(IntProducts, AreThoseOfTheFakeQuantizedPath) {
  for (const int bits : {2, 4, 8})
    for (const char* range : {"tensor", "channel_affine", "channel", "histogram"}) {
      SCOPED_TRACE(fmt::format("{} {}", bits, range));
      OneLayer net(70, 96);
      quantize_activations(net, {{"net.fc.input", 8}}, true);
      net.start();
      const std::vector<float> x = inputs(96 * 33);
      net.run(x, kTraining);
      net.activations().observer()->end_update(cpu_kernels(), alone());
      net.quantize({{"bits", std::to_string(bits)}, {"range", range}});
      const std::vector<double> integers = net.run(x, {});
      net.arena.reset();
      net.tape.restart({});
      const Var quantized = (*net.layer.input)(net.tape, {view_of(x.data(), {33, 96}), nullptr});
      const Var floats = net.layer.weight->linear(net.tape, quantized, net.layer.bias->var(net.tape));
      EXPECT_TRUE(close(integers, to_doubles(floats.value), 1e-5));
      EXPECT_NE(integers, to_doubles(floats.value)) << "integers were not multiplied";
    }
}

TEST(ActivationRanges, GoIntoThePackedFileAndBack) {
  const TempDir dir;
  OneLayer net;
  quantize_activations(net, {{"net.fc.input", 8}}, true);
  net.start();
  const std::vector<float> x = inputs(40 * 5);
  net.run(x, kTraining);
  net.activations().observer()->end_update(cpu_kernels(), alone());
  net.quantize({{"bits", "4"}, {"range", "channel"}});
  const PackedStorage storage;
  round_to_storage(net, storage);
  const uint64_t bytes = write_packed(dir / "net.safetensors", net, {}, storage);
  OneLayer back;
  quantize_activations(back, {{"net.fc.input", 8}}, false);
  back.allocate(DType::f32, cpu_kernels());
  const SafetensorsReader file(dir / "net.safetensors");
  load_packed(back, file, "net", CentroidGradient::sum);
  EXPECT_EQ(back.run(x, {}), net.run(x, {}));
  EXPECT_EQ(packed_sizes(file).total_bytes(), bytes);
}

}  // namespace
}  // namespace qn::test
