// Ranges of activations: what passes see and compute, what evaluation keeps, and what files hold.
#include "compress/activation_ranges.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "compress/packed_model.h"
#include "nn/state_dict.h"
#include "one_layer.h"
#include "ops/uniform_grid.h"
#include "support/capture.h"
#include "support/temp_dir.h"

namespace qn::test {
namespace {

/// As the only rank.
AcrossRanks alone() {
  return {[](std::span<double>) {}, [](std::span<int64_t>) {}};
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

const ActivationPlan kSearched{.name = "net.fc.input", .bits = 4, .range = RangeMethod::histogram, .range_updates = 10};

/// An update with one pass.
void update(OneLayer& net, const std::vector<float>& x, int64_t number) {
  net.activations().observer()->begin_update(number);
  net.run(x, kTraining);
  net.activations().observer()->end_update(cpu_kernels(), alone());
}

std::vector<double> range_of(OneLayer& net) {
  return to_doubles(net.buffers().find("net.fc.input.range")->value.view());
}

/// Normal values and one that is far outside.
std::vector<float> with_outlier(float outlier) {
  std::vector<float> x = inputs(40 * 200);
  x[77] = outlier;
  return x;
}

double squared_error(const std::vector<float>& x, double low, double high, int bits) {
  const auto grid = grid_of_range(low, high, bits, false);
  double error = 0.0;
  for (const float v : x) error += std::pow(grid.quantized(static_cast<double>(v)) - static_cast<double>(v), 2);
  return error;
}

TEST(SearchedActivationRanges, HaveASmallerErrorThanTheWholeRange) {
  for (const int bits : {2, 4, 8}) {
    OneLayer net;
    ActivationPlan plan = kSearched;
    plan.bits = bits;
    quantize_activations(net, {plan}, true);
    net.start();
    const std::vector<float> x = with_outlier(30.0f);
    update(net, x, 0);
    const std::vector<double> range = range_of(net);
    EXPECT_LE(range[1], bits < 8 ? 15.0 : 30.0) << bits;  // with more levels the outlier is worth keeping
    const auto [low, high] = std::minmax_element(x.begin(), x.end());
    const double whole = squared_error(x, static_cast<double>(*low), static_cast<double>(*high), bits);
    EXPECT_LE(squared_error(x, range[0], range[1], bits), whole * (bits < 8 ? 0.5 : 1.0)) << bits;
    // The search for weights has bins between the smallest and largest value: the same but for their borders.
    const ScalarGrid weights = fit_grid(x.data(), 1, std::ssize(x), {bits, RangeMethod::histogram});
    EXPECT_NEAR(grid_of_range(range[0], range[1], bits, false).scale / static_cast<double>(weights.scale[0]), 1.0, 0.02)
        << bits;
  }
}

TEST(SearchedActivationRanges, AreSearchedWhenDueAndReplaced) {
  OneLayer net;
  quantize_activations(net, {kSearched}, true);
  net.start();
  ActivationObserver& observer = *net.activations().observer();
  EXPECT_TRUE(observer.begin_update(3)) << "there is no range yet";
  observer.drop_update(cpu_kernels());
  EXPECT_FALSE(observer.calibrated());
  update(net, inputs(400), 3);
  const std::vector<double> first = range_of(net);
  for (const int64_t number : {3, 5, 6, 7, 9, 11, 16, 19}) {
    EXPECT_FALSE(observer.begin_update(number)) << number;
    update(net, inputs(400, 5.0), number);
    EXPECT_EQ(range_of(net), first) << number;
  }
  for (const int64_t number : {0, 1, 2, 4, 8, 10, 20, 30}) EXPECT_TRUE(observer.begin_update(number)) << number;
  observer.begin_update(10);
  net.run(inputs(400, 7.0), kTraining);
  observer.drop_update(cpu_kernels());
  EXPECT_EQ(range_of(net), first) << "a dropped update leaves no trace";
  update(net, inputs(400, 5.0), 20);
  EXPECT_NEAR(range_of(net)[1] / first[1], 3.0, 0.1) << "the mean of both searches: (1 + 5) / 2";
  EXPECT_EQ(range_of(net)[2], 2.0);
}

/// Ranks that add what the others have counted to what they have.
TEST(SearchedActivationRanges, DoNotDependOnWhichRankSeesWhat) {
  const std::vector<float> a = inputs(400, 0.1), b = with_outlier(-9.0f), c = inputs(800, 3.0);
  const auto after = [](const std::vector<const std::vector<float>*>& own,
                        const std::vector<const std::vector<float>*>& others) {
    struct Sum {
      std::vector<double> largest;
      std::vector<int64_t> counts;
    };
    const auto sums = std::make_shared<Sum>();
    OneLayer other, net;
    for (OneLayer* one : {&other, &net}) {
      quantize_activations(*one, {kSearched}, true);
      one->start();
      one->activations().observer()->begin_update(0);
    }
    for (const auto* x : others) other.run(*x, kTraining);
    for (const auto* x : own) net.run(*x, kTraining);
    // The other rank waits in the reduction of ranges first: this one tells it what it has seen by a second pass.
    other.activations().observer()->end_update(
        cpu_kernels(), {[&](std::span<double> values) {
                          sums->largest.assign(values.begin(), values.end());
                          for (const auto* x : own)
                            for (const float v : *x) {
                              values[0] = std::max(values[0], -static_cast<double>(v));
                              values[1] = std::max(values[1], static_cast<double>(v));
                            }
                        },
                        [&](std::span<int64_t> values) { sums->counts.assign(values.begin(), values.end()); }});
    net.activations().observer()->end_update(cpu_kernels(), {[&](std::span<double> values) {
                                                               for (size_t i = 0; i < values.size(); ++i)
                                                                 values[i] = std::max(values[i], sums->largest[i]);
                                                             },
                                                             [&](std::span<int64_t> values) {
                                                               for (size_t i = 0; i < values.size(); ++i)
                                                                 values[i] += sums->counts[i];
                                                             }});
    return range_of(net);
  };
  const std::vector<double> together = after({&a, &b, &c}, {});
  EXPECT_EQ(after({&a}, {&b, &c}), together);
  EXPECT_EQ(after({&c, &b}, {&a}), together);
  EXPECT_EQ(after({}, {&c, &a, &b}), together);
}

TEST(SearchedActivationRanges, CalibrationCountsAllPassesTogether) {
  OneLayer net, once;
  for (OneLayer* one : {&net, &once}) {
    quantize_activations(*one, {kSearched}, true);
    one->start();
  }
  ActivationObserver& observer = *net.activations().observer();
  EXPECT_EQ(observer.calibration_group(64), 64);
  observer.set_calibrating(true);
  std::vector<float> all;
  for (const double scale : {1.0, 2.0, 0.5}) {
    const std::vector<float> x = inputs(400, scale);
    net.run(x, {});
    all.insert(all.end(), x.begin(), x.end());
  }
  observer.end_update(cpu_kernels(), alone());
  observer.set_calibrating(false);
  update(once, all, 0);
  EXPECT_EQ(range_of(net), range_of(once));
  net.run(inputs(400, 100.0), {});
  observer.end_update(cpu_kernels(), alone());
  EXPECT_EQ(range_of(net), range_of(once));
}

/// Two maps whose outputs were one place before.
struct TwoMaps : Module {
  TwoMaps() {
    const Scope net = root().in("net");
    for (const char* name : {"a.output", "b.output"}) places.push_back(net.activation(name, "ab.output"));
  }
  std::vector<double> run(const PassOptions& pass) {
    Arena arena;
    Tape tape(cpu_kernels(), arena, DType::f32, pass);
    std::vector<double> all;
    for (size_t i = 0; i < places.size(); ++i) {
      const std::vector<float> x = inputs(40, i == 0 ? 1.0 : 4.0);
      const std::vector<double> y = to_doubles((*places[i])(tape, {view_of(x.data(), {1, 40}), nullptr}).value);
      all.insert(all.end(), y.begin(), y.end());
    }
    return all;
  }
  void observe(const std::vector<std::string>& names) {
    std::vector<ActivationPlan> plan;
    for (const std::string& name : names) plan.push_back({.name = name, .bits = 4});
    quantize_activations(*this, plan, true);
    allocate(DType::f32, cpu_kernels());
  }
  std::vector<double> range(const std::string& place) {
    return to_doubles(buffers().find(range_name(place))->value.view());
  }
  std::vector<ActivationPoint*> places;
};

TEST(ActivationRanges, OlderFilesHaveOneRangeForSeveralPlaces) {
  TwoMaps old;
  old.observe({"net.ab.output"});
  old.run(kTraining);
  old.activations().observer()->end_update(cpu_kernels(), alone());
  ASSERT_EQ(old.buffers().all().size(), 1u);
  StateDict state;
  save_module(old, state);

  TwoMaps now;
  now.observe({"net.a.output", "net.b.output"});
  load_module(now, state);
  EXPECT_TRUE(now.activations().observer()->calibrated());
  EXPECT_EQ(now.range("net.a.output"), old.range("net.ab.output"));
  EXPECT_EQ(now.run({}), old.run({})) << "until training goes on";
  now.run(kTraining);
  now.activations().observer()->end_update(cpu_kernels(), alone());
  EXPECT_NE(now.range("net.a.output"), now.range("net.b.output"));
  StateDict own;
  save_module(now, own);
  TwoMaps again;
  again.observe({"net.a.output", "net.b.output"});
  load_module(again, own);
  EXPECT_EQ(again.run({}), now.run({}));
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
