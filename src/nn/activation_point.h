// Named places of a module where activations pass: the inputs and outputs of its linear maps and tables. What quantizes
// activations is attached there; where nothing is, the place costs a comparison.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ops/ops.h"

namespace qn {

class ActivationQuantizer {
 public:
  virtual ~ActivationQuantizer() = default;
  /// x, quantized; the gradient goes straight through.
  virtual Var apply(Tape& tape, const Var& x) = 0;
  /// The grid that x is on behind apply(), for products of integers; null while there is none.
  virtual const ActivationGrid* grid() const = 0;
};

/// How what one rank has seen becomes what all have: every number becomes the largest of all ranks, or their sum.
struct AcrossRanks {
  std::function<void(std::span<double>)> max;
  std::function<void(std::span<int64_t>)> sum;
};

/// What watches the activations of a module to choose their grids.
class ActivationObserver {
 public:
  virtual ~ActivationObserver() = default;
  /// Grids from the module's buffers, which are new or have been loaded.
  virtual void refresh(DType dtype, const Kernels& kernels) = 0;
  /// Before the passes of an update (its number counts those before it), on every rank. Returns whether the host will
  /// read activations in these passes: then they cannot be queued as graphs.
  virtual bool begin_update(int64_t update) = 0;
  /// At the end of an update: takes what its passes have shown into account.
  virtual void end_update(const Kernels& kernels, const AcrossRanks& ranks) = 0;
  /// Instead of end_update(): nothing that its passes have shown counts.
  virtual void drop_update(const Kernels& kernels) = 0;
  /// While calibrating, evaluation passes are watched as well, and activations left alone.
  virtual void set_calibrating(bool calibrating) = 0;
  /// Of `passes` in calibration, how many are to count as one update.
  virtual int64_t calibration_group(int64_t passes) const = 0;
  /// Whether every activation has its grid.
  virtual bool calibrated() const = 0;
};

class ActivationPoint {
 public:
  explicit ActivationPoint(std::string name, std::string former = {})
      : name_(std::move(name)), former_(std::move(former)) {}
  const std::string& name() const { return name_; }  ///< "decoder.layers.0.fc1.input"
  /// Older files know this place, and others with the same former name, as one of that name; often empty.
  const std::string& former() const { return former_; }
  ActivationQuantizer* quantizer() const { return quantizer_.get(); }
  void set_quantizer(std::unique_ptr<ActivationQuantizer> quantizer) { quantizer_ = std::move(quantizer); }
  Var operator()(Tape& tape, const Var& x) const { return quantizer_ ? quantizer_->apply(tape, x) : x; }

 private:
  std::string name_, former_;
  std::unique_ptr<ActivationQuantizer> quantizer_;
};

/// All of a module, in the order in which it was built.
class ActivationSet {
 public:
  ActivationPoint* add(std::string name, std::string former = {}) {
    return points_.emplace_back(std::make_unique<ActivationPoint>(std::move(name), std::move(former))).get();
  }
  const std::vector<std::unique_ptr<ActivationPoint>>& all() const { return points_; }
  ActivationObserver* observer() const { return observer_.get(); }  ///< null where nothing is quantized
  void set_observer(std::shared_ptr<ActivationObserver> observer) { observer_ = std::move(observer); }

 private:
  std::shared_ptr<ActivationObserver> observer_;
  std::vector<std::unique_ptr<ActivationPoint>> points_;
};

}  // namespace qn
