// EfficientNets against torchvision's and timm's (tests/golden/efficientnet.h5), and the sizes of the published ones.
#include "models/efficientnet.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <set>

#include "core/hdf5_file.h"
#include "models/efficientnet_names.h"
#include "models/resnet.h"
#include "ops/keep_bits.h"
#include "support/golden.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

constexpr int64_t kBatch = 4;

/// Fates of stochastic depth by block, in place of random ones.
std::map<uint64_t, std::vector<uint8_t>> fates;

/// The CPU's kernels, with these fates.
Kernels fated_kernels() {
  Kernels kernels = cpu_kernels();
  kernels.keep_bits = [](uint64_t* bits, int64_t n, double p, const RandomKey& key) {
    const auto found = fates.find(key.id);
    if (found == fates.end()) return cpu_kernels().keep_bits(bits, n, p, key);
    std::fill(bits, bits + keep_words(n), 0);
    for (int64_t i = 0; i < n; ++i)
      bits[i / 64] |= static_cast<uint64_t>(found->second[static_cast<size_t>(i)]) << i % 64;
  };
  return kernels;
}

std::vector<double> to_doubles(const Tensor& x) {
  if (x.dtype == DType::f64) return {x.span<double>().begin(), x.span<double>().end()};
  return {x.span<float>().begin(), x.span<float>().end()};
}

/// A net of the golden file.
class GoldenNet {
 public:
  GoldenNet(const Hdf5File& file, std::string group, DType dtype)
      : file_(file), group_(std::move(group)), kernels_(fated_kernels()), tape_(kernels_, arena_, dtype, {}) {
    const bool silu = group_ == "tiny_silu_se";
    shape_ = {.stem = 8,
              .stem_stride = 2,
              .head = 48,
              .stages = {{1, 3, 1, 8, 1}, {4, 3, 2, 16, 2}, {4, 5, 2, 24, 2}},
              .squeeze = silu,
              .padding = silu ? ConvPadding::symmetric : ConvPadding::same,
              .activation = silu ? Activation::silu : Activation::relu6,
              .norm_eps = file.float_attribute(group_, "bn_eps"),
              .norm_momentum = file.float_attribute(group_, "bn_momentum"),
              .dropout = 0.0,
              .drop_path = silu ? file.float_attribute(group_, "stochastic_depth_prob") : 0.0};
    names_ = tensor_names(shape_, silu ? EfficientNetNames::torchvision : EfficientNetNames::timm);
    model_ = std::make_unique<EfficientNet>(shape_, ImageClasses{.channels = 3, .classes = 10});
    model_->allocate(dtype, kernels_);
    for (const auto& [ours, theirs] : names_) {
      Parameter* parameter = model_->parameters().find(ours);
      const auto values =
          file.read<float>(group_ + "/model/" + (parameter != nullptr ? "params/" : "buffers/") + theirs);
      if (parameter != nullptr)
        model_->parameters().set_values(*parameter, values);
      else
        copy_to(model_->buffers().find(ours)->value.view(), values);
    }
  }

  /// Logits of a step's images; recording, in training.
  std::vector<double> logits(int step, const PassOptions& pass) {
    const std::string at = fmt::format("{}/step_{}/", group_, step);
    fates.clear();
    if (pass.training && file_.exists(at + "keep")) read_fates(at + "keep");
    const Shape nchw = file_.shape(at + "images");
    const std::vector<float> images = channels_last(file_.read<float>(at + "images"), nchw);
    tape_.restart(pass);
    logits_ = model_->logits(tape_, input(tape_, images, {nchw[0], nchw[2], nchw[3], nchw[1]}));
    return to_doubles(logits_.value);
  }

  /// Of the labels of step 0; runs the backward of their sum where that is recorded.
  double loss(double smoothing) {
    std::vector<int32_t> labels;
    for (const int64_t label : file_.read<int64_t>(group_ + "/step_0/labels"))
      labels.push_back(static_cast<int32_t>(label));
    const Tensor losses = cross_entropy(tape_, logits_, labels, smoothing * 0.9);  // of the others, of ten classes
    double sum = 0.0;
    for (const double value : losses.span<double>()) sum += value;
    if (tape_.recording()) {
      model_->parameters().begin_gradients();
      tape_.backward();
    }
    return sum;
  }

  void check_gradients(const std::string& entry, double tolerance) const {
    std::set<std::string> zero;
    for (const std::string& name : file_.read_strings(group_ + "/zero_gradient")) zero.insert(name);
    for (const auto& [ours, theirs] : names_) {
      const Parameter* parameter = model_->parameters().find(ours);
      if (parameter == nullptr) continue;
      const std::vector<double> found = to_doubles(parameter->slot.grad);
      if (zero.contains(theirs)) {
        for (const double g : found) EXPECT_LT(std::abs(g), kZeroGradientTolerance) << theirs;
        continue;
      }
      EXPECT_TRUE(close(found, file_.read<double>(group_ + '/' + entry + '/' + theirs), tolerance)) << theirs;
    }
  }

  EfficientNet& model() { return *model_; }
  const Kernels& kernels() const { return kernels_; }
  Tape& tape() { return tape_; }
  const std::vector<std::pair<std::string, std::string>>& names() const { return names_; }

 private:
  static void copy_to(const Tensor& tensor, const std::vector<float>& values) {
    for (size_t i = 0; i < values.size(); ++i)
      if (tensor.dtype == DType::f64)
        tensor.as<double>()[i] = static_cast<double>(values[i]);
      else
        tensor.as<float>()[i] = values[i];
  }
  static std::vector<float> channels_last(const std::vector<float>& images, const Shape& nchw) {
    const int64_t channels = nchw[1], pixels = nchw[2] * nchw[3];
    std::vector<float> result(images.size());
    for (int64_t b = 0; b < nchw[0]; ++b)
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t p = 0; p < pixels; ++p)
          result[static_cast<size_t>((b * pixels + p) * channels + c)] =
              images[static_cast<size_t>((b * channels + c) * pixels + p)];
    return result;
  }
  /// Rows are the blocks that stochastic depth may drop, which "features.2.1" names.
  void read_fates(const std::string& dataset) {
    const std::vector<std::string> blocks = file_.read_strings(group_ + "/stochastic_depth_blocks");
    const std::vector<uint8_t> keep = file_.read<uint8_t>(dataset);
    constexpr int64_t kLayers[] = {1, 2, 2};
    for (size_t i = 0; i < blocks.size() && !keep.empty(); ++i) {
      const int64_t stage = blocks[i][9] - '1';
      const uint64_t block =
          static_cast<uint64_t>(blocks[i][11] - '0' + std::accumulate(kLayers, kLayers + stage, int64_t{0}));
      fates[block].assign(keep.begin() + static_cast<ptrdiff_t>(i * kBatch),
                          keep.begin() + static_cast<ptrdiff_t>((i + 1) * kBatch));
    }
  }

  const Hdf5File& file_;
  std::string group_;
  Kernels kernels_;
  EfficientNetShape shape_;
  std::vector<std::pair<std::string, std::string>> names_;
  std::unique_ptr<EfficientNet> model_;
  Arena arena_{host_memory()};
  Tape tape_;
  Var logits_;
};

class EfficientNetGolden : public testing::TestWithParam<const char*> {};

TEST_P(EfficientNetGolden, LogitsLossesAndGradientsInTraining) {
  QN_GOLDEN(path, "efficientnet.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  const std::string step = std::string(GetParam()) + "/step_0/";
  for (const auto& [dtype, logits, gradients, ending] :
       {std::tuple{DType::f64, kDoubleTolerance, kDoubleTolerance, "_f64"},
        {DType::f32, kForwardTolerance, kGradientTolerance, "_f64"}}) {
    GoldenNet net(file, GetParam(), dtype);
    const PassOptions pass{.training = true, .recording = true};
    EXPECT_TRUE(close(net.logits(0, pass), file.read<double>(step + "logits" + ending), logits));
    EXPECT_NEAR(net.loss(0.0), file.read<double>(step + "loss_f64")[0], 1e-4);
    net.check_gradients("grads_f64", gradients);
    net.logits(0, {.training = true});
    EXPECT_NEAR(net.loss(0.1), file.read<double>(step + "loss_label_smoothing_0_1_f64")[0], 1e-4);
  }
}

TEST_P(EfficientNetGolden, EvaluatesWithRunningAverages) {
  QN_GOLDEN(path, "efficientnet.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  const std::vector<double> expected = file.read<double>(std::string(GetParam()) + "/eval_logits_before_f64");
  GoldenNet exact(file, GetParam(), DType::f64), single(file, GetParam(), DType::f32);
  EXPECT_TRUE(close(exact.logits(0, {}), expected, kDoubleTolerance));
  EXPECT_TRUE(close(single.logits(0, {}), expected, kForwardTolerance));
}

INSTANTIATE_TEST_SUITE_P(Nets, EfficientNetGolden, testing::Values("tiny_silu_se", "tiny_lite_same"),
                         [](const auto& net) { return std::string(net.param); });

TEST(EfficientNet, RunningAveragesFollowAllMicroBatches) {
  QN_GOLDEN(path, "efficientnet.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  GoldenNet net(file, "tiny_silu_se", DType::f64);
  const Tensor mean = net.model().buffers().find("bn1.running_mean")->value.view();
  const std::vector<double> before = to_doubles(mean);
  std::vector<double> seen[2];
  for (const int step : {0, 1}) {
    net.kernels().fill(net.model().statistics().sums(), 0.0);
    net.logits(step, {.training = true});
    seen[step] = to_doubles(net.model().statistics().sums());
  }
  net.logits(0, {.training = true});  // both steps: the sums still have the second
  net.model().statistics().apply(net.kernels(), 2);
  for (size_t c = 0; c < before.size(); ++c)
    EXPECT_NEAR(to_doubles(mean)[c], 0.99 * before[c] + 0.01 * (seen[0][c] + seen[1][c]) / 2, 1e-12);
}

/// Names and shapes of a published network, and its number of parameters.
TEST(EfficientNet, PublishedSizes) {
  QN_GOLDEN(path, "efficientnet.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  using V = EfficientNetVariant;
  using N = EfficientNetNames;
  for (const auto& [variant, names, stored] : {std::tuple{V::b0, N::timm, "timm_tf_efficientnet_b0"},
                                               {V::lite0, N::timm, "timm_tf_efficientnet_lite0"},
                                               {V::b0, N::torchvision, "torchvision_efficientnet_b0"},
                                               {V::b3, N::torchvision, "torchvision_efficientnet_b3"}}) {
    const std::string at = std::string("full_models/") + stored;
    ModelConfig config(ModelType::efficientnet);
    config.select(variant);
    const EfficientNetShape shape = EfficientNetShape::of(config);
    const EfficientNet net(shape, {.channels = 3, .classes = 1000});
    EXPECT_EQ(net.parameters().elements(), file.int_attribute(at, "n_parameters")) << stored;
    std::map<std::string, std::string> ours;
    for (const auto& [own, theirs] : tensor_names(shape, names)) ours[theirs] = own;
    const std::vector<std::string> theirs = file.read_strings(at + "/names");
    const std::vector<int64_t> shapes = file.read<int64_t>(at + "/shapes");
    size_t known = 0;
    for (size_t i = 0; i < theirs.size(); ++i) {
      if (theirs[i].ends_with(".num_batches_tracked")) continue;
      ASSERT_TRUE(ours.contains(theirs[i])) << theirs[i];
      ++known;
      const std::string& own = ours[theirs[i]];
      const Parameter* parameter = net.parameters().find(own);
      const ModuleBuffer* buffer = net.buffers().find(own);
      ASSERT_TRUE(parameter != nullptr || buffer != nullptr) << own;
      std::vector<int64_t> expected(shapes.begin() + static_cast<ptrdiff_t>(4 * i),
                                    shapes.begin() + static_cast<ptrdiff_t>(4 * i + 4));
      std::erase(expected, 0);
      EXPECT_EQ((parameter != nullptr ? parameter->shape : buffer->shape).to_vector(), expected) << own;
    }
    EXPECT_EQ(known, ours.size());
  }
}

TEST(EfficientNet, EveryVariantsNumberOfParameters) {
  // Of torchvision's (B0 to B7) and timm's (Lite) models.
  const std::vector<int64_t> published = {5'288'548,  7'794'184,  9'109'994,  12'233'232, 19'341'616,
                                          30'389'784, 43'040'704, 66'347'960, 4'652'008,  5'416'680,
                                          6'092'072,  8'197'096,  13'006'568};
  const std::vector<EfficientNetVariant>& all = all_values<EfficientNetVariant>();
  for (size_t i = 0; i < all.size(); ++i) {
    ModelConfig config(ModelType::efficientnet);
    config.select(all[i]);
    EXPECT_EQ(EfficientNet(EfficientNetShape::of(config), {}).parameters().elements(), published[i]) << name_of(all[i]);
  }
}

TEST(ResNet, HasThePapersSizes) {
  // He et al. 2015, table 6, in millions: 0.27, 0.46, 0.66, 0.85.
  for (const auto& [layers, parameters] : {std::pair{20, 269'722}, {32, 464'154}, {44, 658'586}, {56, 853'018}}) {
    ModelConfig config(ModelType::resnet);
    config.layers = layers;
    EXPECT_EQ(ResNet(config, {.channels = 3, .classes = 10}).parameters().elements(), parameters);
  }
}

TEST(ResNet, GradientsInDouble) {
  ModelConfig config(ModelType::resnet);
  config.layers = 8;
  config.embed_dim = 3;
  ResNet net(config, {.channels = 2, .classes = 3});
  net.allocate(DType::f64, cpu_kernels());
  net.parameters().initialize(5);
  const RandomStream random({.seed = 3, .purpose = Purpose::test});
  std::vector<float> images(3 * 8 * 8 * 2);
  for (size_t i = 0; i < images.size(); ++i) images[i] = static_cast<float>(random.uniform(i)) - 0.5f;
  const std::vector<int32_t> labels{0, 2, 1};
  Arena arena(host_memory());
  const auto loss = [&](bool recording) {
    Tape tape(cpu_kernels(), arena, DType::f64, {.training = true, .recording = recording});
    const Tensor losses = cross_entropy(tape, net.logits(tape, input(tape, images, {3, 8, 8, 2})), labels);
    double sum = 0.0;
    for (const double value : losses.span<double>()) sum += value;
    if (recording) {
      net.parameters().begin_gradients();
      tape.backward();
    }
    arena.reset();
    return sum;
  };
  loss(true);
  for (const auto& p : net.parameters().all()) {
    const auto middle = static_cast<size_t>(p->value.elements() / 2);
    const double kept = p->value.as<double>()[middle], gradient = p->slot.grad.as<double>()[middle];
    constexpr double kStep = 1e-5;
    p->value.as<double>()[middle] = kept + kStep;
    const double above = loss(false);
    p->value.as<double>()[middle] = kept - kStep;
    const double below = loss(false);
    p->value.as<double>()[middle] = kept;
    EXPECT_NEAR((above - below) / (2 * kStep), gradient, 1e-6 * std::max(1.0, std::abs(gradient))) << p->name;
  }
}

}  // namespace
}  // namespace qn::test
