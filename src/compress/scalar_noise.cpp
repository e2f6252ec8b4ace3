#include "compress/scalar_noise.h"

namespace qn {
namespace {

class ScalarNoise : public Representation {
 public:
  ScalarNoise(Parameter* dense, const ScalarOptions& options, double rate, int64_t block)
      : dense_(dense), options_(options), rate_(rate), block_(block), id_(hash_name(dense->name.c_str())) {}

  Var value(Tape& tape) override {
    Var w = dense_->var(tape);
    w.value = w.value.reshaped({w.value.shape[0], w.value.elements() / w.value.shape[0]});
    const int64_t grids = options_.method == RangeMethod::tensor ? 1 : w.value.shape[0];
    const Tensor range = tape.parameter_tensor({grids, 2});
    FakeQuantize how;
    how.scale = tape.parameter_tensor({grids});
    how.zero_point = tape.parameter_tensor({grids});
    how.bits = options_.bits;
    how.p = rate_;
    how.block = block_;
    how.id = id_;
    how.covers = true;
    tape.k.value_range(range, w.value, false);
    tape.k.range_to_grid(how.scale, how.zero_point, range, how.bits, options_.method == RangeMethod::channel);
    return fake_quantize(tape, w, how);
  }

 private:
  Parameter* dense_;
  ScalarOptions options_;
  double rate_;
  int64_t block_;
  uint64_t id_;
};

}  // namespace

std::unique_ptr<Representation> make_scalar_noise(Parameter* dense, const ScalarOptions& options, double rate,
                                                  int64_t block) {
  QN_ASSERT(options.method != RangeMethod::histogram);
  return std::make_unique<ScalarNoise>(dense, options, rate, block);
}

}  // namespace qn
