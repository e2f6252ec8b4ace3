// Runs entries of the op table on a backend, with inputs and results as doubles.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "core/half.h"
#include "ops/host_access.h"
#include "ops_table.h"

namespace qn::test {

using Doubles = std::vector<double>;

inline Doubles to_doubles(const Kernels& kernels, const Tensor& tensor) {
  const HostView view(kernels, tensor);
  const Tensor& t = view.view();
  if (t.dtype == DType::bf16) return {t.span<bfloat16>().begin(), t.span<bfloat16>().end()};
  if (t.dtype == DType::f16) {
    const std::span bits(static_cast<const uint16_t*>(t.data), static_cast<size_t>(t.elements()));
    Doubles values(bits.size());
    std::transform(bits.begin(), bits.end(), values.begin(), half_to_float);
    return values;
  }
  if (t.dtype == DType::f64) return {t.span<double>().begin(), t.span<double>().end()};
  return {t.span<float>().begin(), t.span<float>().end()};
}

inline void from_doubles(const Kernels& kernels, const Tensor& tensor, const Doubles& values) {
  write_on_host(kernels, tensor, [&](const Tensor& t) {
    if (t.dtype == DType::f64)
      std::copy(values.begin(), values.end(), t.as<double>());
    else if (t.dtype == DType::bf16)
      std::transform(values.begin(), values.end(), t.as<bfloat16>(),
                     [](double v) { return bfloat16(static_cast<float>(v)); });
    else if (t.dtype == DType::f16)
      std::transform(values.begin(), values.end(), static_cast<uint16_t*>(t.data),
                     [](double v) { return float_to_half(static_cast<float>(v)); });
    else
      std::copy(values.begin(), values.end(), t.as<float>());
  });
}

/// Normal numbers that float represents exactly, so that all element types start from the same inputs.
inline Doubles draw(const std::string& name, uint32_t number, int64_t n, OpInput::Values kind = OpInput::Values::any) {
  const RandomStream stream({.seed = 11, .purpose = Purpose::test, .id = hash_name(name.c_str()), .update = number});
  Doubles values(static_cast<size_t>(n));
  for (size_t i = 0; i < values.size(); ++i) {
    double v = stream.normal(i);
    if (kind == OpInput::Values::positive) v = std::abs(v);
    if (kind == OpInput::Values::away_from_zero) v += std::copysign(0.01, v);
    if (kind == OpInput::Values::tiny) v *= 0.005 / (1.0 + std::abs(v));
    values[i] = static_cast<double>(static_cast<float>(v));
  }
  return values;
}

/// With activations that `dtype` represents, so that it starts from the same as double.
inline std::vector<Doubles> draw_inputs(const OpCase& op, DType dtype = DType::f32) {
  std::vector<Doubles> inputs;
  for (const OpInput& input : op.inputs) {
    inputs.push_back(draw(op.name, static_cast<uint32_t>(inputs.size()), input.shape.elements(), input.values));
    if (input.parameter) continue;
    for (double& v : inputs.back()) {
      if (dtype == DType::bf16) v = bfloat16(static_cast<float>(v));
      if (dtype == DType::f16) v = half_to_float(float_to_half(static_cast<float>(v)));
    }
  }
  return inputs;
}

/// Where the gradients of a run collect.
enum class Slots {
  none,     ///< not recording
  fresh,    ///< memory comes from the arena at the first contribution, as for activations
  garbage,  ///< memory is there and holds NaN, as for parameters at the start of an update
  ones      ///< an earlier use has contributed 1 to every element
};

struct OpRun {
  std::vector<Doubles> outputs, grads;
};

class Runner {
 public:
  Runner(const OpCase& op, DType dtype, const Kernels& kernels = cpu_kernels())
      : op_(op), arena_(*kernels.memory), tape_(kernels, arena_, dtype, {}) {}

  OpRun run(const std::vector<Doubles>& inputs, Slots kind) { return run(op_.forward, inputs, kind); }

  /// Sum of all outputs with the weights that the last recorded run gave them; of the surrogate where there is one.
  double objective(const std::vector<Doubles>& inputs, const std::vector<Doubles>& unperturbed) {
    std::vector<Doubles> all = inputs;
    if (op_.surrogate) all.insert(all.end(), unperturbed.begin(), unperturbed.end());
    const OpRun result = run(op_.surrogate ? op_.surrogate : op_.forward, all, Slots::none);
    double sum = 0.0;
    for (size_t o = 0; o < result.outputs.size(); ++o)
      sum += std::inner_product(weights_[o].begin(), weights_[o].end(), result.outputs[o].begin(), 0.0);
    return sum;
  }

 private:
  /// New memory from the arena holds NaN: whoever reads before writing is found out.
  void poison() {
    const std::vector<unsigned char> ones(size_t{4} << 20, 0xff);
    tape_.k.upload(arena_.allocate(ones.size()), ones.data(), ones.size());
    arena_.reset();
  }

  DType type_of(const OpInput& input) const { return input.parameter ? tape_.parameter_dtype() : tape_.dtype(); }

  GradientSlot make_home(const Tensor& value, Slots kind) {
    GradientSlot slot{{nullptr, value.shape, value.dtype}, false};
    if (kind == Slots::fresh) return slot;
    slot.grad = arena_.tensor(value.shape, value.dtype);
    const auto n = static_cast<size_t>(value.elements());
    from_doubles(tape_.k, slot.grad, Doubles(n, kind == Slots::ones ? 1.0 : std::nan("")));
    slot.touched = kind == Slots::ones;
    return slot;
  }

  OpRun run(const OpCase::Forward& forward, const std::vector<Doubles>& inputs, Slots kind) {
    const bool recording = kind != Slots::none;
    if (recording) poison();
    tape_.restart({.training = op_.training, .recording = recording, .seed = 7, .update = 3, .micro_batch = 2});
    std::vector<GradientSlot> slots(inputs.size());
    std::vector<Var> vars;
    for (size_t i = 0; i < inputs.size(); ++i) {
      const OpInput& input = op_.inputs[i % op_.inputs.size()];
      const Tensor value = arena_.tensor(input.shape, type_of(input));
      from_doubles(tape_.k, value, inputs[i]);
      if (recording) slots[i] = make_home(value, kind);
      vars.push_back({value, recording ? &slots[i] : nullptr});
    }
    OpRun result;
    const std::vector<Var> outputs = forward(tape_, vars);
    for (const Var& y : outputs) result.outputs.push_back(to_doubles(tape_.k, y.value));
    if (recording) {
      seed_gradients(outputs);
      tape_.backward();
      for (size_t i = 0; i < slots.size(); ++i)
        result.grads.push_back(slots[i].touched ? to_doubles(tape_.k, slots[i].grad) : Doubles(inputs[i].size(), 0.0));
    }
    arena_.reset();
    return result;
  }

  /// Results weigh in with random numbers, losses (which have no slot) with 1.
  void seed_gradients(const std::vector<Var>& outputs) {
    weights_.clear();
    for (const Var& y : outputs) {
      const int64_t n = y.value.elements();
      if (y.slot == nullptr) {
        weights_.emplace_back(static_cast<size_t>(n), 1.0);
        continue;
      }
      weights_.push_back(draw(op_.name, static_cast<uint32_t>(100 + weights_.size()), n));
      const Tape::Slot slot = tape_.slot(y);
      QN_ASSERT(slot.beta == 0);
      from_doubles(tape_.k, slot.grad, weights_.back());
    }
  }

  const OpCase& op_;
  Arena arena_;
  Tape tape_;
  std::vector<Doubles> weights_;  ///< of each output in the objective, from the last recorded run
};

}  // namespace qn::test
