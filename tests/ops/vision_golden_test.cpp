// The ops of image networks against torch's: pieces/* of efficientnet.h5. Images there are [batch, channels, height,
// width].
#include <gtest/gtest.h>

#include <barrier>
#include <thread>

#include "core/hdf5_file.h"
#include "op_runner.h"
#include "ops/vision.h"
#include "support/golden.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

constexpr double kDoublePieceTolerance = 1e-12;

/// One computation on a tape of its own, in float or in double, with inputs and results in torch's order.
class Piece {
 public:
  Piece(const Hdf5File& file, DType dtype, const PassOptions& pass)
      : file_(file), tape_(cpu_kernels(), arena_, dtype, pass) {}

  Tape& tape() { return tape_; }
  bool exact() const { return tape_.dtype() == DType::f64; }

  /// A dataset as an activation or, with `parameter`, a parameter; images channels last.
  Var read(const std::string& name, bool parameter = false) {
    Doubles values = file_.read<double>(name);
    Shape shape = file_.shape(name);
    if (!parameter && shape.rank() == 4) {
      values = reordered(values, shape, true);
      shape = {shape[0], shape[2], shape[3], shape[1]};
    }
    const Tensor t = parameter ? tape_.parameter_tensor(shape) : tape_.tensor(shape);
    from_doubles(tape_.k, t, values);
    auto* slot = new (arena_.allocate(sizeof(GradientSlot))) GradientSlot{{nullptr, shape, t.dtype}, false};
    return {t, slot};
  }
  /// y's gradient is that dataset; then everything goes backwards.
  void backward(const Var& y, const std::string& name) {
    tape_.k.copy(tape_.slot(y).grad, read(name).value.reshaped(y.value.shape));
    tape_.backward();
  }
  /// Whether a tensor is what the file has, in the precision of the tape.
  testing::AssertionResult equals(const Tensor& actual, const std::string& name, double floor = 0.0) const {
    const bool wide = exact() && file_.exists(name + "_f64");
    const std::string dataset = wide ? name + "_f64" : name;
    Doubles values = to_doubles(tape_.k, actual);
    const Shape shape = file_.shape(dataset);
    if (shape.rank() == 4 && shape[1] != 1 && name.find("weight") == std::string::npos)
      values = reordered(values, shape, false);
    return close(values, file_.read<double>(dataset), wide ? kDoublePieceTolerance : kLayerTolerance, floor);
  }

 private:
  /// Channels to the back, or back to the front; `shape` has them in front.
  static Doubles reordered(const Doubles& values, const Shape& shape, bool to_back) {
    Doubles result(values.size());
    const int64_t channels = shape[1], pixels = shape[2] * shape[3];
    for (int64_t b = 0; b < shape[0]; ++b)
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t p = 0; p < pixels; ++p) {
          const auto front = static_cast<size_t>((b * channels + c) * pixels + p);
          const auto back = static_cast<size_t>((b * pixels + p) * channels + c);
          result[to_back ? back : front] = values[to_back ? front : back];
        }
    return result;
  }

  const Hdf5File& file_;
  Arena arena_;
  Tape tape_;
};

class VisionGolden : public testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    QN_GOLDEN(path, "efficientnet.h5");
    file_.emplace(path, Hdf5File::Mode::read);
  }
  const Hdf5File& file() const { return *file_; }
  std::optional<Hdf5File> file_;
};

TEST_P(VisionGolden, Convolutions) {
  int found = 0;
  for (const std::string& name : file().members("pieces")) {
    if (name.rfind("conv_", 0) != 0) continue;
    ++found;
    SCOPED_TRACE(name);
    const std::string at = "pieces/" + name + "/";
    Piece piece(file(), GetParam(), {.training = true, .recording = true});
    const Var x = piece.read(at + "input"), w = piece.read(at + "weight", true);
    const auto attribute = [&](const char* key) { return file().int_attribute("pieces/" + name, key); };
    ConvShape shape{.batch = x.value.shape[0],
                    .height = x.value.shape[1],
                    .width = x.value.shape[2],
                    .in = x.value.shape[3],
                    .out = w.value.shape[0],
                    .groups = attribute("groups"),
                    .kernel_h = attribute("kernel"),
                    .kernel_w = attribute("kernel"),
                    .stride = attribute("stride")};
    if (file().string_attribute("pieces/" + name, "padding") == "same")
      shape.pad(same_padding(shape.height, shape.kernel_h, shape.stride),
                same_padding(shape.width, shape.kernel_w, shape.stride));
    else
      shape.pad(torch_padding(shape.kernel_h), torch_padding(shape.kernel_w));
    EXPECT_EQ(shape.pad_top, attribute("pad_top"));
    EXPECT_EQ(shape.pad_bottom, attribute("pad_bottom"));
    EXPECT_EQ(shape.pad_left, attribute("pad_left"));
    EXPECT_EQ(shape.pad_right, attribute("pad_right"));
    const Var y = conv2d(piece.tape(), x, w, shape);
    EXPECT_TRUE(piece.equals(y.value, at + "output"));
    piece.backward(y, at + "grad_output");
    EXPECT_TRUE(piece.equals(x.slot->grad, at + "grad_input"));
    EXPECT_TRUE(piece.equals(w.slot->grad, at + "grad_weight"));
  }
  EXPECT_GE(found, 14);
}

TEST_P(VisionGolden, Activations) {
  for (const Activation kind : {Activation::relu6, Activation::silu, Activation::sigmoid}) {
    SCOPED_TRACE(name_of(kind));
    const std::string at = std::string("pieces/act_") + name_of(kind) + "/";
    Piece piece(file(), GetParam(), {.recording = true});
    const Var x = piece.read(at + "input");
    const Var y = activation_dropout(piece.tape(), x, {}, kind, {});
    EXPECT_TRUE(piece.equals(y.value, at + "output"));
    piece.backward(y, at + "grad_output");
    EXPECT_TRUE(piece.equals(x.slot->grad, at + "grad_input"));
  }
}

TEST_P(VisionGolden, BatchNorm) {
  for (const std::string name : {"bn", "bn_small"}) {
    const std::string group = "pieces/" + name;
    // Two values per channel cancel in the gradient.
    const double floor = name == "bn_small" ? 1e-4 : 0.0;
    for (const std::string pass : {"step_0", "step_1", "eval"}) {
      SCOPED_TRACE(group + "/" + pass);
      const bool training = pass != "eval";
      Piece piece(file(), GetParam(), {.training = training, .recording = true});
      const std::string at = group + "/" + pass + "/";
      const Var x = piece.read(at + "input"), w = piece.read(group + "/weight", true),
                b = piece.read(group + "/bias", true);
      BatchNormArgs args{.eps = file().float_attribute(group, "eps")};
      if (training) {
        args.batch_sums = piece.tape().parameter_tensor({2, w.value.elements()});
        piece.tape().k.fill(args.batch_sums, 0.0);
      } else {
        args.running_mean = piece.read(group + "/step_1/running_mean", true).value;
        args.running_var = piece.read(group + "/step_1/running_var", true).value;
      }
      const Var y = batch_norm(piece.tape(), x, w, b, args);
      EXPECT_TRUE(piece.equals(y.value, at + "output", piece.exact() && !training ? 1e-6 : 0.0));
      piece.backward(y, at + "grad_output");
      const double eval_floor = piece.exact() && !training ? 1e-5 : 0.0;  // running averages were stored in float
      EXPECT_TRUE(piece.equals(x.slot->grad, at + "grad_input", piece.exact() ? eval_floor : floor));
      EXPECT_TRUE(piece.equals(w.slot->grad, at + "grad_weight", eval_floor));
      EXPECT_TRUE(piece.equals(b.slot->grad, at + "grad_bias"));
      if (!training) continue;
      // What a trainer makes of the sums.
      const double share = file().float_attribute(group, "momentum");
      const std::string last = pass == "step_0" ? "running_" : "step_0/running_", end = pass == "step_0" ? "_0" : "";
      for (const auto& [what, row] : {std::pair{"mean", 0}, {"var", 1}}) {
        const Doubles before = file().read<double>(group + "/" + last + what + end);
        Doubles after = to_doubles(piece.tape().k, args.batch_sums.row_slice(row, 1));
        for (size_t c = 0; c < after.size(); ++c) after[c] = (1 - share) * before[c] + share * after[c];
        EXPECT_TRUE(close(after, file().read<double>(at + "running_" + what), kLayerTolerance)) << what;
      }
    }
  }
}

TEST_P(VisionGolden, SqueezeExcitation) {
  const std::string at = "pieces/squeeze_excitation/";
  Piece piece(file(), GetParam(), {.recording = true});
  Tape& tape = piece.tape();
  const Var x = piece.read(at + "input");
  std::map<std::string, Var> p;
  for (const std::string name : {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"})
    p[name] = piece.read(at + name, true);
  const auto matrix = [](const Var& w) { return Var{w.value.reshaped({w.value.shape[0], w.value.shape[1]}), w.slot}; };
  const Var inner = activation_dropout(tape, linear(tape, average_pool(tape, x), matrix(p["fc1.weight"]), {}),
                                       p["fc1.bias"], Activation::silu, {});
  const Var gate = activation_dropout(tape, linear(tape, inner, matrix(p["fc2.weight"]), {}), p["fc2.bias"],
                                      Activation::sigmoid, {});
  const Var y = scale_channels(tape, x, gate);
  EXPECT_TRUE(piece.equals(y.value, at + "output"));
  piece.backward(y, at + "grad_output");
  EXPECT_TRUE(piece.equals(x.slot->grad, at + "grad_input"));
  for (const auto& [name, var] : p) EXPECT_TRUE(piece.equals(var.slot->grad, at + "grad_" + name)) << name;
}

TEST_P(VisionGolden, StochasticDepth) {
  const std::string at = "pieces/stochastic_depth/";
  Piece piece(file(), GetParam(), {});
  const Var branch = piece.read(at + "input"), shortcut = piece.read(at + "input1"),
            dy = piece.read(at + "grad_output");
  uint64_t bits = 0;
  const auto keep = file().read<double>(at + "keep");
  for (size_t b = 0; b < keep.size(); ++b) bits |= uint64_t{keep[b] != 0.0} << b;
  const double scale = 1.0 / (1.0 - file().float_attribute("pieces/stochastic_depth", "p"));
  const Tensor y = piece.tape().tensor(branch.value.shape);
  piece.tape().k.scale_samples(y, shortcut.value, branch.value, &bits, scale);
  EXPECT_TRUE(piece.equals(y, at + "output"));
  piece.tape().k.scale_samples(y, {}, dy.value, &bits, scale);
  EXPECT_TRUE(piece.equals(y, at + "grad_input"));
}

INSTANTIATE_TEST_SUITE_P(Types, VisionGolden, testing::Values(DType::f32, DType::f64),
                         [](const auto& type) { return std::string(name_of(type.param)); });

/// Sums over threads that stand for ranks.
class SumOverThreads : public SumOverRanks {
 public:
  SumOverThreads(std::barrier<>& barrier, std::vector<const Tensor*>& all, size_t rank)
      : barrier_(barrier), all_(all), rank_(rank) {}
  void sum(const Tensor& values) const override {
    all_[rank_] = &values;
    barrier_.arrive_and_wait();
    Doubles total(static_cast<size_t>(values.elements()), 0.0);
    for (const Tensor* part : all_)
      for (size_t i = 0; i < total.size(); ++i) total[i] += part->as<double>()[i];
    barrier_.arrive_and_wait();
    std::copy(total.begin(), total.end(), values.as<double>());
  }

 private:
  std::barrier<>& barrier_;
  std::vector<const Tensor*>& all_;
  size_t rank_;
};

TEST(SynchronisedBatchNorm, EqualsOneLargeBatch) {
  constexpr int64_t kChannels = 5;
  const std::vector<int64_t> images = {1, 3};  // of unequal ranks
  struct Result {
    Doubles y, dx, dw, sums;
  };
  const auto run = [&](int64_t first, int64_t count, const SumOverRanks* ranks) {
    Arena arena;
    Tape tape(cpu_kernels(), arena, DType::f64, {.training = true, .recording = true, .ranks = ranks});
    const auto values = [&](uint32_t number, Shape shape, bool whole) {
      const Tensor t = tape.tensor(shape);
      const Doubles all = draw("synchronised", number, 4 * 2 * 3 * kChannels);
      const auto begin = all.begin() + (whole ? 0 : first * 2 * 3 * kChannels);
      from_doubles(tape.k, t, {begin, begin + t.elements()});
      return t;
    };
    const Shape shape{count, 2, 3, kChannels};
    GradientSlot dx{{nullptr, shape, DType::f64}}, dw{{nullptr, {kChannels}, DType::f64}}, db = dw;
    const Tensor sums = tape.tensor({2, kChannels});
    tape.k.fill(sums, 0.0);
    const Var y = batch_norm(tape, {values(0, shape, false), &dx}, {values(1, {kChannels}, true), &dw},
                             {values(2, {kChannels}, true), &db}, {.batch_sums = sums, .activation = Activation::silu});
    tape.k.copy(tape.slot(y).grad, values(3, shape, false));
    tape.backward();
    return Result{to_doubles(tape.k, y.value), to_doubles(tape.k, dx.grad), to_doubles(tape.k, dw.grad),
                  to_doubles(tape.k, sums)};
  };
  const Result whole = run(0, 4, nullptr);
  std::barrier barrier(2);
  std::vector<const Tensor*> all(2);
  std::vector<Result> parts(2);
  {
    std::vector<std::jthread> threads;
    for (size_t rank = 0; rank < 2; ++rank)
      threads.emplace_back([&, rank] {
        const SumOverThreads sum(barrier, all, rank);
        parts[rank] = run(rank == 0 ? 0 : images[0], images[rank], &sum);
      });
  }
  const auto joined = [&](Doubles Result::*what) {
    Doubles both = parts[0].*what;
    both.insert(both.end(), (parts[1].*what).begin(), (parts[1].*what).end());
    return both;
  };
  EXPECT_TRUE(close(joined(&Result::y), whole.y, kDoubleTolerance));
  EXPECT_TRUE(close(joined(&Result::dx), whole.dx, kDoubleTolerance));
  Doubles dw = parts[0].dw;
  for (size_t c = 0; c < dw.size(); ++c) dw[c] += parts[1].dw[c];
  EXPECT_TRUE(close(dw, whole.dw, kDoubleTolerance));
  for (const Result& part : parts) EXPECT_TRUE(close(part.sums, whole.sums, kDoubleTolerance));
}

TEST(BatchNorm, OfOneValueIsRefused) {
  Arena arena;
  Tape tape(cpu_kernels(), arena, DType::f32, {.training = true});
  const Tensor x = tape.tensor({1, 1, 1, 3}), w = tape.tensor({3});
  EXPECT_THROW(batch_norm(tape, {x, nullptr}, {w, nullptr}, {w, nullptr}, {}), Error);
}

TEST(BatchNorm, LargeMeansDoNotDrownTheVariance) {
  Arena arena;
  Tape tape(cpu_kernels(), arena, DType::f32, {.training = true});
  constexpr int64_t kRows = 5000;
  const Tensor x = tape.tensor({kRows, 1}), w = tape.tensor({1}), b = tape.tensor({1});
  tape.k.fill(w, 1.0);
  tape.k.fill(b, 0.0);
  for (int64_t i = 0; i < kRows; ++i) x.as<float>()[i] = i % 2 == 0 ? 255.0f : 256.0f;
  const Var y = batch_norm(tape, {x, nullptr}, {w, nullptr}, {b, nullptr}, {.eps = 0.0});
  EXPECT_NEAR(y.value.as<float>()[0], -1.0, 1e-3);
  EXPECT_NEAR(y.value.as<float>()[1], 1.0, 1e-3);
}

}  // namespace
}  // namespace qn::test
