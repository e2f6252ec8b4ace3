// Trainable tensors by name, laid out in one flat buffer of values and one of gradients: the optimizer, the reducer and
// the gradient norm work on the flat buffers, layers on named slices.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ops/tape.h"

namespace qn {

/// How a parameter starts. Source: reference 5.7.
struct InitRule {
  enum class Kind { zeros, ones, normal, uniform };
  Kind kind = Kind::zeros;
  double scale = 0.0;     ///< standard deviation (normal) or half width (uniform)
  int64_t zero_row = -1;  ///< a row that starts at zero (padding)
};

struct Parameter {
  std::string name;
  Shape shape;
  InitRule init;
  int64_t offset = -1;  ///< elements into the flat buffers, after allocate()
  Tensor value;
  GradientSlot slot;

  Var var(const Tape& tape) {
    if (pass_ != tape.pass_id()) {
      pass_ = tape.pass_id();
      first_step_ = tape.steps();
    }
    return {value, tape.recording() ? &slot : nullptr};
  }
  bool used_in(const Tape& tape) const { return pass_ == tape.pass_id(); }
  /// No backward step before this one contributes to the gradient: it is complete when the backward, which runs the
  /// last step first, has done this one.
  size_t first_step() const { return first_step_; }

 private:
  uint64_t pass_ = 0;  ///< the pass that used it last
  size_t first_step_ = 0;
};

class ParameterStore {
 public:
  /// Registers a parameter; names are unique. Memory comes with allocate().
  Parameter* add(std::string name, Shape shape, InitRule init);
  /// Forgets a parameter (its weight is represented otherwise from now on). Takes effect with the next allocate().
  void remove(const Parameter* parameter);
  Parameter* find(const std::string& name) const;  ///< nullptr when there is none

  /// (Re-)lays out the flat buffers in order of registration, in the memory of `kernels`, which must outlive the store.
  /// Parameters that had memory keep their values. Without gradients nothing can be trained.
  void allocate(DType dtype, const Kernels& kernels, bool gradients = true);
  /// The same where the store is now; the first time: the CPU.
  void allocate(DType dtype) { allocate(dtype, *kernels_); }
  /// Draws all values from their init rules: a function of the seed and the parameter's name only.
  void initialize(uint64_t seed);
  void initialize(Parameter& parameter, uint64_t seed);
  /// Values that come from elsewhere, in row-major order. Throws qn::Error unless there is one for every element.
  void set_values(Parameter& parameter, std::span<const float> values);
  /// A parameter's values now, as floats.
  std::vector<float> values_of(const Parameter& parameter) const;

  /// Before the first micro-batch of an update: gradients are overwritten, not added to.
  void begin_gradients();
  /// After the last one: gradients nobody wrote become zero.
  void finish_gradients();

  const std::vector<std::unique_ptr<Parameter>>& all() const { return parameters_; }
  std::vector<std::string> names() const;
  /// Number of trainable elements; known before allocate().
  int64_t elements() const;
  /// The backend whose memory values and gradients are in.
  const Kernels& kernels() const { return *kernels_; }
  const Tensor& values() const { return values_.view(); }  ///< flat, with padding between parameters that stays zero
  const Tensor& grads() const { return grads_.view(); }
  DType dtype() const { return values_.view().dtype; }

 private:
  std::vector<std::unique_ptr<Parameter>> parameters_;
  const Kernels* kernels_ = &cpu_kernels();
  OwnedTensor values_, grads_;
};

}  // namespace qn
