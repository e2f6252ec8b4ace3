// A module with what compression meets: two matrices, a table with a tied second use, a bias and a buffer.
#pragma once

#include <memory>
#include <vector>

#include "nn/layers/linear.h"
#include "quant/quantizer.h"

namespace qn::test {

class SmallNet : public Module {
 public:
  static constexpr int64_t kWords = 24, kWidth = 16, kHidden = 32;

  SmallNet() {
    const Scope net = root().in("net");
    table_ = net.table("embed.weight", 0, kWords, kWidth, init::normal(1.0));
    fc1_ = Linear::build(net, "fc1", groups::kFfn, kHidden, kWidth, init::normal(1.0), init::normal(1.0));
    fc2_ = Linear::build(net, "fc2", groups::kFfn, kWidth, kHidden, init::normal(1.0), std::nullopt);
    output_ = table_;
    net.tie("output.weight", groups::kSoftmax, &output_);
    range_ = net.buffer("fc1.input.range", {2}, 0.5);
    allocate(DType::f32, cpu_kernels());
    parameters().initialize(1);
  }

  /// Logits [ids, kWords].
  Var forward(Tape& tape, std::span<const int32_t> ids) {
    return output_->linear(tape, fc2_(tape, fc1_(tape, table_->lookup(tape, ids, 1.0, -1))));
  }
  Weight& weight(const std::string& name) { return *weights().find("net." + name + ".weight"); }
  ModuleBuffer& range() { return *range_; }

 private:
  Weight *table_, *output_;
  Linear fc1_, fc2_;
  ModuleBuffer* range_;
};

/// Logits of a few words, in evaluation.
inline std::vector<float> logits(SmallNet& net) {
  Arena arena;
  Tape tape(cpu_kernels(), arena, DType::f32, {});
  const std::vector<int32_t> ids = {3, 1, 17};
  const Tensor y = net.forward(tape, ids).value;
  return {y.span<float>().begin(), y.span<float>().end()};
}

inline std::shared_ptr<const Quantizer> pq(int64_t d, int64_t k) {
  return make_quantizer("pq", {{"block_size", std::to_string(d)}, {"n_centroids", std::to_string(k)}});
}
inline std::shared_ptr<const Quantizer> scalar(int bits, const std::string& range) {
  return make_quantizer("int", {{"bits", std::to_string(bits)}, {"range", range}});
}
inline QuantizedTensor quantized(Weight& weight, const Quantizer& quantizer) {
  return quantizer.quantize(weight.dense()->value.as<float>(), weight.rows(), weight.cols());
}

}  // namespace qn::test
