// Weights represented by codes of any quantizer, also of one that the program has never heard of.
#include "compress/representation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "small_net.h"

namespace qn::test {
namespace {

/// Signs times the mean magnitude.
class SignQuantizer : public Quantizer {
 public:
  std::string type() const override { return "sign"; }
  QuantizerOptions options() const override { return {}; }
  std::string text() const override { return "sign"; }
  void check(int64_t, int64_t, const std::string&) const override {}
  QuantizedLayout layout(int64_t rows, int64_t cols) const override {
    return {.codes = rows * cols, .levels = 2, .code_shape = {rows, cols}, .side = {{"size", {1}, true, true}}};
  }
  QuantizedTensor quantize(const float* weight, int64_t rows, int64_t cols, std::span<const float>) const override {
    QuantizedTensor tensor{.quantizer = shared_from_this(), .rows = rows, .cols = cols};
    double total = 0.0;
    for (int64_t i = 0; i < rows * cols; ++i) {
      tensor.codes.push_back(weight[i] > 0.0f ? 1 : 0);
      total += std::abs(static_cast<double>(weight[i]));
    }
    tensor.values = {{"size", {1}, {static_cast<float>(total / static_cast<double>(rows * cols))}}};
    return tensor;
  }
  void decode(const QuantizedTensor& tensor, float* weight) const override {
    const float size = tensor.side("size").values[0];
    for (const uint16_t code : tensor.codes) *weight++ = code == 1 ? size : -size;
  }
};

std::vector<float> values_of(Weight& weight) {
  Arena arena;
  Tape tape(cpu_kernels(), arena, DType::f32, {});
  const Tensor value = weight.value(tape).value;
  return {value.span<float>().begin(), value.span<float>().end()};
}

std::vector<float> decoded(const QuantizedTensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.rows * tensor.cols));
  tensor.quantizer->decode(tensor, values.data());
  return values;
}

TEST(Representation, AnyQuantizerWorksWithoutOneOfItsOwn) {
  SmallNet net;
  Weight& fc1 = net.weight("fc1");
  const QuantizedTensor tensor = quantized(fc1, *std::make_shared<SignQuantizer>());
  RepresentationSwap swap(net, CentroidGradient::sum);
  swap.replace(fc1, tensor);
  swap.finish();
  EXPECT_EQ(fc1.dense(), nullptr);
  EXPECT_TRUE(fc1.parts().empty());
  EXPECT_EQ(net.parameters().find("net.fc1.weight"), nullptr);
  EXPECT_EQ(values_of(fc1), decoded(tensor));
  EXPECT_EQ(quantized_tensor(fc1, net.parameters())->codes, tensor.codes);
  round_side_values(fc1, ValueStorage::f16);
  EXPECT_NE(values_of(fc1), decoded(tensor));
  EXPECT_NEAR(values_of(fc1)[0], decoded(tensor)[0], 1e-3);
}

TEST(Representation, FrozenWeightsLetGradientsThrough) {
  SmallNet net;
  RepresentationSwap swap(net, CentroidGradient::sum);
  swap.replace(net.weight("fc1"), quantized(net.weight("fc1"), *scalar(4, "channel")));
  swap.finish();
  Arena arena;
  Tape tape(cpu_kernels(), arena, DType::f32, {.training = true, .recording = true});
  net.parameters().begin_gradients();
  const std::vector<int32_t> ids = {2, 5}, targets = {1, 0};
  cross_entropy(tape, net.forward(tape, ids), targets);
  tape.backward();
  net.parameters().finish_gradients();
  for (const char* name : {"net.embed.weight", "net.fc1.bias", "net.fc2.weight"}) {
    double sum = 0.0;
    for (const float g : net.parameters().find(name)->slot.grad.span<float>()) sum += std::abs(static_cast<double>(g));
    EXPECT_GT(sum, 0.0) << name;
  }
}

TEST(Representation, CentroidsAreTrainedAndReadBack) {
  SmallNet net;
  Weight& fc2 = net.weight("fc2");
  const QuantizedTensor tensor = quantized(fc2, *pq(4, 16));
  RepresentationSwap swap(net, CentroidGradient::sum);
  swap.replace(fc2, tensor);
  swap.finish();
  ASSERT_EQ(fc2.parts().size(), 1u);
  Parameter* centroids = fc2.parts()[0].parameter;
  EXPECT_EQ(centroids->name, "net.fc2.centroids");
  EXPECT_EQ(values_of(fc2), decoded(tensor));
  centroids->value.as<float>()[0] += 1.0f;
  EXPECT_EQ(quantized_tensor(fc2, net.parameters())->values[0].values[0], tensor.values[0].values[0] + 1.0f);
  EXPECT_EQ(values_of(fc2), decoded(*quantized_tensor(fc2, net.parameters())));
}

/// Gradient of the loss on two tokens, for the parameter of that name.
std::vector<float> gradient_of(SmallNet& net, const std::string& name) {
  Arena arena;
  Tape tape(cpu_kernels(), arena, DType::f32, {.training = true, .recording = true});
  net.parameters().begin_gradients();
  for (const auto& weight : net.weights().all()) weight->representation().begin_update(cpu_kernels(), 0);
  for (int pass = 0; pass < 2; ++pass) {  // gradients add up
    const std::vector<int32_t> ids = {2, 5}, targets = {1, 0};
    cross_entropy(tape, net.forward(tape, ids), targets);
    tape.backward();
    tape.restart(tape.pass());
  }
  net.parameters().finish_gradients();
  const Tensor& grad = net.parameters().find(name)->slot.grad;
  return {grad.span<float>().begin(), grad.span<float>().end()};
}

TEST(Representation, CentroidsInInt8AreTrainedAsTheyAreStored) {
  SmallNet net;
  Weight& fc2 = net.weight("fc2");
  RepresentationSwap swap(net, {.gradient = CentroidGradient::sum, .int8_centroids = true});
  swap.replace(fc2, quantized(fc2, *pq(4, 16)));
  swap.finish();
  Parameter* centroids = fc2.parts()[0].parameter;
  const std::vector<float> seen = values_of(fc2), gradient = gradient_of(net, centroids->name);
  const std::vector<float> master = net.parameters().values_of(*centroids);
  EXPECT_NE(seen, decoded(*quantized_tensor(fc2, net.parameters())));
  std::vector<float> rounded = master;
  round_to_storage(rounded, ValueStorage::int8);
  net.parameters().set_values(*centroids, rounded);
  EXPECT_EQ(seen, decoded(*quantized_tensor(fc2, net.parameters())));
  EXPECT_EQ(values_of(fc2), seen);
  EXPECT_EQ(gradient_of(net, centroids->name), gradient);  // straight through: it is that at the stored values
  rounded[0] *= 3.0f;                                      // evaluation follows
  net.parameters().set_values(*centroids, rounded);
  round_to_storage(rounded, ValueStorage::int8);
  const std::vector<float> now = values_of(fc2);
  net.parameters().set_values(*centroids, rounded);
  EXPECT_EQ(now, decoded(*quantized_tensor(fc2, net.parameters())));
}

TEST(Representation, LatentValuesGetTheGradientOfTheDecodedOnes) {
  SmallNet net, other;
  Weight& fc2 = net.weight("fc2");
  const std::vector<float> dense = net.parameters().values_of(*fc2.dense());
  RepresentationSwap swap(net, {.gradient = CentroidGradient::sum, .latent = true});
  swap.replace(fc2, quantized(fc2, *pq(4, 16)));
  swap.finish();
  const Parameter* latent = net.parameters().find("net.fc2.latent");
  ASSERT_NE(latent, nullptr);
  EXPECT_EQ(net.parameters().values_of(*latent), dense);
  for (const auto& p : other.parameters().all())
    if (Parameter* same = net.parameters().find(p->name))
      other.parameters().set_values(*p, net.parameters().values_of(*same));
  other.parameters().set_values(*other.weight("fc2").dense(), values_of(fc2));
  EXPECT_EQ(gradient_of(net, latent->name), gradient_of(other, "net.fc2.weight"));
}

TEST(Representation, CodesMoveToTheNearestCentroidOfLatentValues) {
  SmallNet net;
  Weight& fc2 = net.weight("fc2");
  const QuantizedTensor tensor = quantized(fc2, *pq(4, 16));
  RepresentationSwap swap(net, {.gradient = CentroidGradient::root, .latent = true});
  swap.replace(fc2, tensor);
  swap.finish();
  MovableCodes* movable = movable_codes(fc2);
  ASSERT_NE(movable, nullptr);
  Parameter* latent = net.parameters().find("net.fc2.latent");
  // Every latent block is what another centroid is: the one behind its own, the farther away the later the block.
  QuantizedTensor moved = tensor;
  for (uint16_t& code : moved.codes) code = static_cast<uint16_t>((code + 1) % 16);
  net.parameters().set_values(*latent, decoded(moved));
  const auto blocks = std::ssize(tensor.codes);
  EXPECT_EQ(movable->move_codes(cpu_kernels(), 0.25), blocks / 4);
  int64_t differing = 0;
  for (size_t n = 0; n < tensor.codes.size(); ++n) {
    const uint16_t code = fc2.representation().quantized()->codes[n];
    EXPECT_TRUE(code == tensor.codes[n] || code == moved.codes[n]);
    differing += code != tensor.codes[n] ? 1 : 0;
  }
  EXPECT_EQ(differing, blocks / 4);
  EXPECT_EQ(movable->move_codes(cpu_kernels(), 1.0), blocks - blocks / 4);
  EXPECT_EQ(fc2.representation().quantized()->codes, moved.codes);
  EXPECT_EQ(values_of(fc2), decoded(moved));
  EXPECT_EQ(movable->move_codes(cpu_kernels(), 1.0), 0);
  movable->set_codes(cpu_kernels(), tensor.codes);
  EXPECT_EQ(values_of(fc2), decoded(tensor));
}

std::shared_ptr<const Quantizer> scaled_pq(int64_t d, int64_t k) {
  return quantizer_from_text(fmt::format("pq block_size={} n_centroids={} row_scales=rms", d, k), "");
}

TEST(Representation, RowScalesAreTrainedAndReadBack) {
  SmallNet net, other;
  Weight& fc2 = net.weight("fc2");
  const QuantizedTensor tensor = quantized(fc2, *scaled_pq(4, 16));
  RepresentationSwap swap(net, CentroidGradient::sum);
  swap.replace(fc2, tensor);
  swap.finish();
  ASSERT_EQ(fc2.parts().size(), 2u);
  Parameter* scales = net.parameters().find("net.fc2.row_scales");
  ASSERT_EQ(fc2.parts()[1].parameter, scales);
  EXPECT_EQ(scales->shape, (Shape{16}));
  EXPECT_EQ(values_of(fc2), decoded(tensor));
  // Of a dense weight with these values: the sum over a row of gradient times decoded row without its scale.
  for (const auto& p : other.parameters().all())
    if (Parameter* same = net.parameters().find(p->name))
      other.parameters().set_values(*p, net.parameters().values_of(*same));
  other.parameters().set_values(*other.weight("fc2").dense(), values_of(fc2));
  const std::vector<float> dense = gradient_of(other, "net.fc2.weight"), found = gradient_of(net, scales->name);
  QuantizedTensor unit = tensor;
  std::fill(unit.values[1].values.begin(), unit.values[1].values.end(), 1.0f);
  const std::vector<float> rows = decoded(unit);
  for (size_t r = 0; r < 16; ++r) {
    double expected = 0.0;
    for (size_t c = 0; c < 32; ++c) expected += static_cast<double>(dense[r * 32 + c]) * rows[r * 32 + c];
    EXPECT_NEAR(found[r], expected, 1e-5 * (1.0 + std::abs(expected))) << r;
  }
  scales->value.as<float>()[3] = -2.0f;
  EXPECT_EQ(quantized_tensor(fc2, net.parameters())->side("row_scales").values[3], -2.0f);
  EXPECT_EQ(values_of(fc2), decoded(*quantized_tensor(fc2, net.parameters())));
}

TEST(Representation, CodesMoveUnderRowScales) {
  SmallNet net;
  Weight& fc2 = net.weight("fc2");
  const QuantizedTensor tensor = quantized(fc2, *scaled_pq(4, 16));
  RepresentationSwap swap(net, {.gradient = CentroidGradient::sum, .latent = true});
  swap.replace(fc2, tensor);
  swap.finish();
  QuantizedTensor moved = tensor;
  for (uint16_t& code : moved.codes) code = static_cast<uint16_t>((code + 1) % 16);
  net.parameters().set_values(*net.parameters().find("net.fc2.latent"), decoded(moved));
  EXPECT_EQ(movable_codes(fc2)->move_codes(cpu_kernels(), 1.0), std::ssize(tensor.codes));
  EXPECT_EQ(values_of(fc2), decoded(moved));
}

TEST(Representation, WrongTensorsAreRefusedByName) {
  SmallNet net;
  QuantizedTensor tensor = quantized(net.weight("fc2"), *pq(4, 16));
  RepresentationSwap swap(net, CentroidGradient::sum);
  EXPECT_THAT([&] { swap.replace(net.weight("fc1"), tensor); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("net.fc1.weight is 32 x 16")));
  tensor.codes[0] = 16;
  EXPECT_THAT([&] { swap.replace(net.weight("fc2"), tensor); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("'net.fc2.weight'")));
  EXPECT_FALSE(quantized_tensor(net.weight("fc2"), net.parameters()).has_value());
}

}  // namespace
}  // namespace qn::test
