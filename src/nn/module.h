// A module owns what a network is made of, by name: parameters, weights, buffers, and the places where activations
// pass. Trainer, checkpoints, noise, quantization and packing work on any module, whatever its layers compute.
//
//   class Net : public qn::Module {
//     Net() : fc_(Linear::build(root().in("fc"), ...)) {}   // layers register what they own through a Scope
//     Var forward(Tape& tape, const Var& x) { return fc_(tape, x); }
//   };
#pragma once

#include <string>
#include <vector>

#include "nn/activation_point.h"
#include "nn/buffers.h"
#include "nn/running_statistics.h"
#include "nn/weight.h"

namespace qn {

class Scope;

/// A part of a network that computes with what belongs to another: everything below `of` stands below `name`, too, and
/// is stored, trained and quantized once. Both are prefixes of names, without the dot behind: "decoder.layers.1".
struct SharedPart {
  std::string name, of;
};

class Module {
 public:
  Module() = default;
  virtual ~Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  ParameterStore& parameters() { return parameters_; }
  const ParameterStore& parameters() const { return parameters_; }
  WeightSet& weights() { return weights_; }
  const WeightSet& weights() const { return weights_; }
  BufferStore& buffers() { return buffers_; }
  const BufferStore& buffers() const { return buffers_; }
  ActivationSet& activations() { return activations_; }
  const ActivationSet& activations() const { return activations_; }
  /// Of batch normalisation; empty in most networks.
  RunningStatistics& statistics() { return statistics_; }
  const RunningStatistics& statistics() const { return statistics_; }
  const std::vector<SharedPart>& shared() const { return shared_; }
  /// Where a network registers its parts, without a prefix.
  Scope root();

  /// Memory for parameters and buffers in the memory of `kernels`, which must outlive the module; what had values keeps
  /// them. Without gradients it can only be evaluated.
  void allocate(DType dtype, const Kernels& kernels, bool gradients = true);
  /// After buffers were written from outside.
  void refresh();

 private:
  ParameterStore parameters_;
  WeightSet weights_;
  BufferStore buffers_;
  RunningStatistics statistics_;
  ActivationSet activations_;
  std::vector<SharedPart> shared_;
  friend class Scope;
};

/// A place in a module's tree of names: what is registered here gets the prefix in front of its name. Cheap to copy.
class Scope {
 public:
  explicit Scope(Module& module, std::string prefix = {}) : module_(&module), prefix_(std::move(prefix)) {}

  /// The scope below: "decoder." and "layers.0" give "decoder.layers.0.".
  Scope in(const std::string& name) const { return Scope(*module_, prefix_ + name + '.'); }
  std::string name(const std::string& own) const { return prefix_ + own; }
  Module& module() const { return *module_; }

  Parameter* parameter(const std::string& own, Shape shape, InitRule init) const {
    return module_->parameters().add(name(own), shape, init);
  }
  ModuleBuffer* buffer(const std::string& own, Shape shape, double start) const {
    return module_->buffers().add(name(own), shape, start);
  }
  ActivationPoint* activation(const std::string& own) const { return module_->activations().add(name(own)); }
  /// A place that older files know, with others, as the one place `former`.
  ActivationPoint* activation(const std::string& own, const std::string& former) const {
    return module_->activations().add(name(own), name(former));
  }
  /// Any trainable tensor that noise and quantization may act on. Its name ends in ".weight".
  Weight* weight(const std::string& own, const char* group, WeightKind kind, Shape shape, InitRule init) const {
    return module_->weights().add(module_->parameters(), name(own), group, kind, shape, init);
  }
  /// A matrix [out, in] to multiply by.
  Weight* linear(const std::string& own, const char* group, int64_t out, int64_t in, InitRule init) const {
    return weight(own, group, WeightKind::linear, {out, in}, init);
  }
  /// Vectors of tokens first, first + 1, ...
  Weight* table(const std::string& own, int64_t first, int64_t rows, int64_t dim, InitRule init) const {
    Weight* result = weight(own, groups::kEmbedding, WeightKind::embedding, {rows, dim}, init);
    result->set_first_token(first);
    return result;
  }
  /// A second use of the weight that `place` points to; see WeightSet::untie().
  void tie(const std::string& own, const char* group, Weight** place) const {
    module_->weights().tie(name(own), group, place);
  }
  /// This part computes with the parameters and weights of `owner`. It registers none, only activations of its own.
  void share(const Scope& owner) const {
    const auto part = [](const Scope& scope) { return scope.prefix_.substr(0, scope.prefix_.size() - 1); };
    module_->shared_.push_back({part(*this), part(owner)});
  }

 private:
  Module* module_;
  std::string prefix_;
};

inline Scope Module::root() { return Scope(*this); }
inline void Module::allocate(DType dtype, const Kernels& kernels, bool gradients) {
  parameters_.allocate(dtype, kernels, gradients);
  buffers_.allocate(dtype, kernels);
  statistics_.allocate(dtype, kernels);
  refresh();
}
inline void Module::refresh() {
  if (ActivationObserver* observer = activations_.observer())
    observer->refresh(parameters_.dtype(), parameters_.kernels());
}

}  // namespace qn
