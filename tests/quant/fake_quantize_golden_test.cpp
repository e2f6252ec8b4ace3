// Fake quantization against the reference vectors: weights of layers (int_*) and activations over several forwards.
// One thing differs on purpose, and is checked to be all that does: a quantized value outside the levels' range becomes
// the bound here, while the reference reflects it about the bound.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "core/hdf5_file.h"
#include "ops/ops.h"
#include "quant/scalar_quantizer.h"
#include "support/golden.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

using Floats = std::vector<float>;

class FakeQuantizeGolden : public testing::Test {
 protected:
  /// A quantized tensor [rows, cols] of the file, its grid and its mask (1: left unquantized).
  struct Quantized {
    int64_t rows, cols;
    Floats x;
    ScalarGrid grid;
    std::vector<uint8_t> keep, fragile;
  };

  static Tensor rows_of(const Quantized& q, Floats& values) { return view_of(values.data(), {q.rows, q.cols}); }

  FakeQuantize how(const Quantized& q) {
    const auto n = static_cast<int64_t>(q.grid.scale.size());
    return {.scale = view_of(q.grid.scale.data(), {n}),
            .zero_point = view_of(q.grid.zero_point.data(), {n}),
            .bits = q.grid.bits,
            .p = 0.5,
            .id = 3};
  }

  Floats quantized(Quantized& q, double p) {
    Floats y(q.x.size());
    const FakeQuantize h = how(q);
    cpu_kernels().fake_quantize(rows_of(q, y), rows_of(q, q.x), h.scale, h.zero_point, h.bits, p, 1, {});
    return y;
  }

  /// 1 where x lies within the levels' range, else 0: the gradient of the clamp.
  Floats inside(Quantized& q) {
    Floats y(q.x.size()), ones(q.x.size(), 1.0f);
    const FakeQuantize h = how(q);
    cpu_kernels().fake_quantize_grad(rows_of(q, y), rows_of(q, ones), rows_of(q, q.x), h.scale, h.zero_point, h.bits,
                                     0);
    return y;
  }

  /// The values with the file's mask. `reference` is what fairseq has: the same but for reflected values, of which
  /// there are so many.
  Floats expect_values(Quantized& q, const Floats& reference, int64_t n_reflected) {
    const Floats all = quantized(q, 1.0), none = quantized(q, 0.0), covered = inside(q);
    Floats ours = all, expected = reference;
    int64_t reflected = 0;
    for (size_t i = 0; i < ours.size(); ++i) {
      if (q.keep[i] != 0) ours[i] = none[i];
      if (q.keep[i] == 0 && covered[i] == 0.0f) {
        EXPECT_NEAR(reference[i], 2 * none[i] - q.x[i], kLayerTolerance) << "not reflected: " << i;
        EXPECT_EQ(ours[i], none[i]);
        expected[i] = none[i];
        ++reflected;
      }
      if (!q.fragile.empty() && q.fragile[i] != 0 && q.keep[i] == 0) {  // on a tie: a step either way
        const float step = q.grid.scale[q.grid.scale.size() == 1 ? 0 : i / static_cast<size_t>(q.cols)];
        EXPECT_NEAR(ours[i], expected[i], 1.001f * step) << "fragile: " << i;
        expected[i] = ours[i];
      }
    }
    EXPECT_EQ(reflected, n_reflected);
    EXPECT_TRUE(close(ours, expected, kLayerTolerance));
    return ours;
  }

  /// Zero outside of the range, at so many places.
  void expect_zeros(Quantized& q, const Floats& grad, int64_t n_zero) {
    const Floats covered = inside(q);
    EXPECT_EQ(std::count(covered.begin(), covered.end(), 0.0f), n_zero);
    for (size_t i = 0; i < grad.size(); ++i) EXPECT_TRUE(covered[i] != 0.0f || grad[i] == 0.0f) << i;
  }

  static Quantized read_weight(const Hdf5File& file, const std::string& group) {
    const Shape shape = file.shape(group + "/weight");
    Quantized q{.rows = shape[0],
                .cols = shape.elements() / shape[0],
                .x = file.read<float>(group + "/weight"),
                .grid = {static_cast<int>(file.int_attribute(group, "bits")), file.read<float>(group + "/scale"), {}},
                .keep = file.read<uint8_t>(group + "/keep_mask"),
                .fragile = {}};
    for (const int64_t zero : file.read<int64_t>(group + "/zero_point"))
      q.grid.zero_point.push_back(static_cast<float>(zero));
    if (file.exists(group + "/fragile")) q.fragile = file.read<uint8_t>(group + "/fragile");
    return q;
  }

  Floats expect_weight(const Hdf5File& file, const std::string& group, Quantized& q) {
    const Floats ours =
        expect_values(q, file.read<float>(group + "/effective_weight"), file.int_attribute(group, "n_reflected"));
    expect_zeros(q, file.read<float>(group + "/grad_weight"), file.int_attribute(group, "n_zero_grad"));
    return ours;
  }

  Var constant(const Floats& values, Shape shape) {
    const Tensor t = tape_.tensor(shape);
    std::copy(values.begin(), values.end(), t.as<float>());
    return {t, nullptr};
  }

  /// The gradient of the weight through the op and `use`, for the file's gradient of the result. Masks play no part.
  Floats weight_gradient(Quantized& q, const Floats& grad_output, const std::function<Var(const Var&)>& use) {
    GradientSlot slot{{nullptr, {q.rows, q.cols}, DType::f32}, false};
    const Var y = use(fake_quantize(tape_, {rows_of(q, q.x), &slot}, how(q)));
    const Tape::Slot dy = tape_.slot(y);
    std::copy(grad_output.begin(), grad_output.end(), dy.grad.as<float>());
    tape_.backward();
    tape_.restart(kTraining);
    return {slot.grad.span<float>().begin(), slot.grad.span<float>().end()};
  }

  void expect_linear(const Hdf5File& file, const std::string& group) {
    Quantized q = read_weight(file, group);
    const Floats ours = expect_weight(file, group, q), reference = file.read<float>(group + "/effective_weight");
    const Var x = constant(file.read<float>(group + "/input"), file.shape(group + "/input"));
    const Var bias = constant(file.read<float>(group + "/bias"), {q.rows});
    const Floats expected = file.read<float>(group + "/output");
    const auto output = [&](const Floats& w) {
      const Tensor y = linear(tape_, x, constant(w, {q.rows, q.cols}), bias).value;
      return Floats(y.span<float>().begin(), y.span<float>().end());
    };
    EXPECT_TRUE(close(output(reference), expected, kLayerTolerance));
    Floats result = output(ours);
    for (size_t i = 0; i < result.size(); ++i) {  // outputs whose weights are reflected differ, and no others
      const auto row = static_cast<int64_t>(i) % q.rows;
      const auto begin = ours.begin() + row * q.cols;
      const bool reflected =
          !close(Floats(begin, begin + q.cols),
                 Floats(reference.begin() + row * q.cols, reference.begin() + (row + 1) * q.cols), kLayerTolerance);
      if (reflected) result[i] = expected[i];
    }
    EXPECT_TRUE(close(result, expected, kLayerTolerance));
    const Floats grad = weight_gradient(q, file.read<float>(group + "/grad_output"),
                                        [&](const Var& w) { return linear(tape_, x, w, bias); });
    EXPECT_TRUE(close(grad, file.read<float>(group + "/grad_weight"), kLayerTolerance));
  }

  void expect_embedding(const Hdf5File& file, const std::string& group) {
    Quantized q = read_weight(file, group);
    expect_weight(file, group, q);
    const auto tokens = file.read<int64_t>(group + "/input");
    const std::vector<int32_t> ids(tokens.begin(), tokens.end());
    constexpr int32_t kPadding = 1;
    const Floats grad = weight_gradient(q, file.read<float>(group + "/grad_output"),
                                        [&](const Var& w) { return embedding(tape_, w, ids, 1.0, kPadding); });
    EXPECT_TRUE(close(grad, file.read<float>(group + "/grad_weight"), kLayerTolerance));
  }

  static constexpr PassOptions kTraining{.training = true, .recording = true};
  Arena arena_;
  Tape tape_{cpu_kernels(), arena_, DType::f32, kTraining};
};

TEST_F(FakeQuantizeGolden, Layers) {
  QN_GOLDEN(path, "scalar.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  int cases = 0;
  for (const std::string& name : file.members("/")) {
    if (!name.starts_with("int_")) continue;
    SCOPED_TRACE(name);
    ++cases;
    if (name.starts_with("int_linear")) {
      expect_linear(file, name);
    } else if (name.starts_with("int_embedding")) {
      expect_embedding(file, name);
    } else {
      Quantized q = read_weight(file, name);
      expect_weight(file, name, q);
    }
  }
  EXPECT_GT(cases, 0);
}

TEST_F(FakeQuantizeGolden, WeightsOfConvolutions) {
  QN_GOLDEN(path, "conv_quant.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  int cases = 0;
  for (const std::string& name : file.members("int_conv")) {
    const std::string group = "int_conv/" + name, method = file.string_attribute(group, "method");
    if (method == "channel_last") continue;  // a scale per column of the kernel: what fairseq asks for by mistake
    SCOPED_TRACE(group);
    Quantized q = read_weight(file, group);
    expect_weight(file, group, q);
    const Floats source = file.exists(group + "/range_weight") ? file.read<float>(group + "/range_weight") : q.x;
    const RangeMethod range = method == "tensor"      ? RangeMethod::tensor
                              : method == "histogram" ? RangeMethod::histogram
                                                      : RangeMethod::channel;
    const ScalarGrid grid = fit_grid(source.data(), q.rows, q.cols, {q.grid.bits, range});
    EXPECT_TRUE(close(grid.scale, q.grid.scale, kScaleTolerance));
    EXPECT_EQ(grid.zero_point, q.grid.zero_point);
    ++cases;
  }
  EXPECT_GT(cases, 0);
}

TEST_F(FakeQuantizeGolden, Activations) {
  QN_GOLDEN(path, "conv_quant.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  int forwards = 0;
  for (const std::string& name : file.members("activation"))
    for (const std::string& forward : file.members("activation/" + name)) {
      if (!forward.starts_with("forward_")) continue;
      const std::string layer = "activation/" + name, group = layer + "/" + forward;
      SCOPED_TRACE(group);
      Quantized q{.rows = 1,
                  .cols = file.shape(group + "/module_output").elements(),
                  .x = file.read<float>(group + "/module_output"),
                  .grid = {static_cast<int>(file.int_attribute(layer, "bits")),
                           {static_cast<float>(file.float_attribute(group, "scale"))},
                           {static_cast<float>(file.int_attribute(group, "zero_point"))}},
                  .keep = file.read<uint8_t>(group + "/keep_mask"),
                  .fragile = file.read<uint8_t>(group + "/fragile")};
      expect_values(q, file.read<float>(group + "/output"), file.int_attribute(group, "n_reflected"));
      const Floats expected = file.read<float>(group + "/grad_module_output");
      expect_zeros(q, expected, file.int_attribute(group, "n_outside"));
      const Floats grad = weight_gradient(q, file.read<float>(group + "/grad_output"), [](const Var& y) { return y; });
      EXPECT_TRUE(close(grad, expected, kLayerTolerance));
      if (file.int_attribute(group, "range_updated") != 0) {
        const RangeMethod range =
            file.string_attribute(layer, "method") == "tensor" ? RangeMethod::tensor : RangeMethod::histogram;
        const ScalarGrid grid = fit_grid(q.x.data(), q.rows, q.cols, {q.grid.bits, range});
        EXPECT_TRUE(close(grid.scale, q.grid.scale, kScaleTolerance));
        EXPECT_EQ(grid.zero_point, q.grid.zero_point);
      }
      ++forwards;
    }
  EXPECT_GT(forwards, 0);
}

/// Two layers whose outputs are clamped to the range of the batch. Their weights are the reference's, reflected values
/// included, so that everything behind them can be compared.
TEST_F(FakeQuantizeGolden, TrainsANetworkWithClampedActivations) {
  QN_GOLDEN(path, "scalar.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  const auto bits = static_cast<int>(file.int_attribute("mlp", "bits"));
  std::vector<GradientSlot> slots;
  slots.reserve(4);
  const auto wanted = [&](const Floats& values, Shape shape) {
    Var v = constant(values, shape);
    v.slot = &slots.emplace_back(GradientSlot{{nullptr, shape, DType::f32}, false});
    return v;
  };
  std::vector<Quantized> weights;
  const auto layer = [&](const Var& x, const std::string& number) {
    const Shape shape = file.shape("mlp/w" + number);
    Quantized& q = weights.emplace_back(Quantized{shape[0],
                                                  shape[1],
                                                  file.read<float>("mlp/w" + number),
                                                  {bits, file.read<float>("mlp/scale" + number), {}},
                                                  file.read<uint8_t>("mlp/keep" + number),
                                                  {}});
    q.grid.zero_point = {static_cast<float>(file.read<int64_t>("mlp/zero_point" + number)[0])};
    Floats effective = quantized(q, 1.0);
    const Floats clamped = quantized(q, 0.0), covered = inside(q);
    for (size_t i = 0; i < effective.size(); ++i) {
      if (q.keep[i] != 0) effective[i] = clamped[i];
      if (q.keep[i] == 0 && covered[i] == 0.0f) effective[i] = 2 * clamped[i] - q.x[i];
    }
    const Var w = wanted(effective, shape), b = wanted(file.read<float>("mlp/b" + number), {shape[0]});
    const Var y = linear(tape_, x, w, b);
    const Tensor range = tape_.tensor({1, 2}), scale = tape_.tensor({1}), zero_point = tape_.tensor({1});
    tape_.k.value_range(range, y.value, false);
    tape_.k.range_to_grid(scale, zero_point, range, bits, false);
    return fake_quantize(tape_, y, {.scale = scale, .zero_point = zero_point, .bits = bits, .p = 0.0});
  };
  weights.reserve(2);
  const Var x = constant(file.read<float>("mlp/input"), file.shape("mlp/input"));
  const Var y = layer(activation_dropout(tape_, layer(x, "0"), {}, Activation::relu, {}), "2");
  EXPECT_TRUE(close(y.value.span<float>(), file.read<float>("mlp/train_output"), kLayerTolerance));
  const Floats grad_output = file.read<float>("mlp/grad_output");
  std::copy(grad_output.begin(), grad_output.end(), tape_.slot(y).grad.as<float>());
  tape_.backward();
  for (size_t l = 0; l < 2; ++l) {
    const std::string number = l == 0 ? "0" : "2";
    Quantized& q = weights[l];
    const Tensor &dw = slots[2 * l].grad, &db = slots[2 * l + 1].grad;
    const FakeQuantize h = how(q);
    tape_.k.fake_quantize_grad(dw, dw, rows_of(q, q.x), h.scale, h.zero_point, h.bits, 0);
    EXPECT_TRUE(close(dw.span<float>(), file.read<float>("mlp/grad_w" + number), kLayerTolerance));
    EXPECT_TRUE(close(db.span<float>(), file.read<float>("mlp/grad_b" + number), kLayerTolerance));
  }
}

}  // namespace
}  // namespace qn::test
