// The epilogue of a convolution, a pixel's adjacent channels at a time.
#pragma once

#include <vector>

#include "ops/cpu/activations.h"
#include "ops/cpu/parallel.h"

namespace qn::cpu {

/// Scale 1 and shift 0 where the epilogue has none.
template <typename T>
class EpilogueRow {
 public:
  using P = ParameterOf<T>;
  EpilogueRow(const ConvEpilogue& e, int64_t channels)
      : ones_(e.scale.defined() ? 0 : static_cast<size_t>(channels), P{1}),
        zeros_(e.shift.defined() ? 0 : static_cast<size_t>(channels), P{0}),
        scale_(e.scale.defined() ? e.scale.as<P>() : ones_.data()),
        shift_(e.shift.defined() ? e.shift.as<P>() : zeros_.data()),
        residual_(e.residual.defined() ? e.residual.as<T>() : nullptr),
        plain_(!e.scale.defined() && !e.shift.defined() && !e.activation.has_value() && residual_ == nullptr) {}

  /// Whether sums are stored as they are.
  bool plain() const { return plain_; }

  /// y[at .. at + n) from sums of channels channel .. channel + n.
  template <typename Act>
  void store(T* y, int64_t at, const P* sums, int64_t channel, int64_t n, Act) const {
    const P *scale = scale_ + channel, *shift = shift_ + channel;
    T* out = y + at;
    if (residual_ == nullptr) {
      for (int64_t c = 0; c < n; ++c) out[c] = static_cast<T>(Act::value(sums[c] * scale[c] + shift[c]));
    } else {
      const T* residual = residual_ + at;
      for (int64_t c = 0; c < n; ++c) out[c] = static_cast<T>(Act::value(sums[c] * scale[c] + shift[c]) + residual[c]);
    }
  }

 private:
  std::vector<P> ones_, zeros_;
  const P *scale_, *shift_;
  const T* residual_;
  bool plain_;
};

}  // namespace qn::cpu
