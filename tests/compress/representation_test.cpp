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
  const Tensor losses = tape.arena.tensor({2}, DType::f64);
  tape.k.fill(losses, 0.0);
  cross_entropy(tape, losses, net.forward(tape, ids), targets, {});
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
