// One linear map as a module, for tests of what quantizes its weight and what passes it.
#pragma once

#include <vector>

#include "compress/representation.h"
#include "core/random.h"
#include "models/golden_model.h"
#include "nn/layers/linear.h"
#include "support/tolerance.h"

namespace qn::test {

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

inline std::vector<float> inputs(int64_t count, double scale = 1.0) {
  const RandomStream random({.seed = 3, .purpose = Purpose::test});
  std::vector<float> x;
  for (int64_t i = 0; i < count; ++i) x.push_back(static_cast<float>(scale * random.normal(static_cast<uint64_t>(i))));
  return x;
}

inline const PassOptions kTraining{.training = true, .recording = true, .seed = 5, .update = 3};

}  // namespace qn::test
