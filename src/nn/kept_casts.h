// Casts of weights to the type of activations that serve all micro-batches of an update, in place of one in each pass.
// Weights whose results stand side by side (queries, keys and values of an attention) lie one behind another here, so
// that linear_concat() multiplies by all of them at once.
#pragma once

#include <vector>

#include "nn/weight.h"

namespace qn {

/// Which weights are cast, and which stand side by side, is what their passes so far have shown. Of use where casts are
/// kernels like others, on a device; on the host it does nothing.
class KeptCasts {
 public:
  /// `dtype` is that of activations.
  KeptCasts(WeightSet& weights, const Kernels& kernels, DType dtype);

  /// While it lives, weights must stay as they are.
  class Scope {
   public:
    explicit Scope(KeptCasts& casts) : casts_(casts) {}
    ~Scope() { casts_.end(); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    KeptCasts& casts_;
  };
  /// Before the passes of an update: casts the weights as they are now.
  [[nodiscard]] Scope begin();

 private:
  void end();
  struct Place {
    Weight* weight;
    size_t offset;  // bytes
    bool operator==(const Place&) const = default;
  };
  std::vector<Place> lay_out(size_t& bytes) const;

  WeightSet& weights_;
  const Kernels& kernels_;
  DType dtype_;
  bool used_;
  std::vector<Place> places_;
  Buffer memory_;
};

}  // namespace qn
