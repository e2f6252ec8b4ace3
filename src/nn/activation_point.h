// Named places of a module where activations pass: the inputs and outputs of its linear maps and tables. What quantizes
// activations is attached there; where nothing is, the place costs a comparison.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ops/ops.h"

namespace qn {

class ActivationQuantizer {
 public:
  virtual ~ActivationQuantizer() = default;
  /// x, quantized; the gradient goes straight through.
  virtual Var apply(Tape& tape, const Var& x) = 0;
};

class ActivationPoint {
 public:
  explicit ActivationPoint(std::string name) : name_(std::move(name)) {}
  const std::string& name() const { return name_; }  ///< "decoder.layers.0.fc1.input"
  ActivationQuantizer* quantizer() const { return quantizer_.get(); }
  void set_quantizer(std::unique_ptr<ActivationQuantizer> quantizer) { quantizer_ = std::move(quantizer); }
  Var operator()(Tape& tape, const Var& x) const { return quantizer_ ? quantizer_->apply(tape, x) : x; }

 private:
  std::string name_;
  std::unique_ptr<ActivationQuantizer> quantizer_;
};

/// All of a module, in the order in which it was built.
class ActivationSet {
 public:
  ActivationPoint* add(std::string name) {
    return points_.emplace_back(std::make_unique<ActivationPoint>(std::move(name))).get();
  }
  const std::vector<std::unique_ptr<ActivationPoint>>& all() const { return points_; }

 private:
  std::vector<std::unique_ptr<ActivationPoint>> points_;
};

}  // namespace qn
