// The arithmetic of uniform scalar quantization (reference 2.2), one for the quantizer and the kernels, for host and
// device: Q(x) = (clamp(round_half_even(x / S + Z), 0, 2^b - 1) - Z) * S.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/philox.h"

namespace qn {

/// Smallest scale, so that a range of zero width quantizes to zero: the machine epsilon of float.
inline constexpr double kSmallestScale = 1.1920928955078125e-7;

/// Number of the last code, 2^bits - 1.
QN_HOST_DEVICE constexpr int last_code(int bits) { return (1 << bits) - 1; }

/// Equidistant levels (code - zero_point) * scale for codes 0..last. `P` is the type of parameters. NaN stays NaN.
template <typename P>
struct UniformGrid {
  P scale, zero_point, last;

  QN_HOST_DEVICE P level(P code) const { return (code - zero_point) * scale; }
  /// Smallest and largest level: what lies outside becomes the bound.
  QN_HOST_DEVICE P low() const { return level(P{0}); }
  QN_HOST_DEVICE P high() const { return level(last); }
  /// A whole number in 0..last. The zero point is added before rounding, as the reference does.
  QN_HOST_DEVICE P code(P x) const {
    using std::rint;
    P position = x / scale + zero_point;
    position = position < P{0} ? P{0} : position;
    return rint(position > last ? last : position);  // the bounds are whole numbers: clamping may come first
  }
  /// The same as an integer; not-a-number becomes 0.
  QN_HOST_DEVICE int32_t index(P x) const {
    const P whole = code(x);
    return static_cast<int32_t>(whole > P{0} ? whole : P{0});
  }
  QN_HOST_DEVICE P quantized(P x) const { return level(code(x)); }
  QN_HOST_DEVICE P clamped(P x) const {
    const P raised = x < low() ? low() : x;
    return raised > high() ? high() : raised;
  }
  QN_HOST_DEVICE bool covers(P x) const { return low() <= x && x <= high(); }
};

/// The grid of values in [low, high]. Affine: zero is included and is exactly a level; the scale divides the range by
/// 2^bits - 1 steps, whatever the number of bits (the reference always divides by 255). Symmetric: scale is the
/// largest magnitude over half the steps, the zero point 128 for 8 bits and 2^(bits-1) - 1 for fewer, as torch has it.
/// No values (low > high) give scale 1 and zero point 0. NaN as a bound gives NaN.
template <typename P>
QN_HOST_DEVICE UniformGrid<P> grid_of_range(P low, P high, int bits, bool symmetric) {
  const P last = static_cast<P>(last_code(bits));
  if (low > high) return {P{1}, P{0}, last};
  if (!symmetric) {
    low = low > P{0} ? P{0} : low;
    high = high < P{0} ? P{0} : high;
  }
  // In double, where the width of any range of floats is finite.
  const double steps = last_code(bits);
  const double width = symmetric ? 2.0 * static_cast<double>(-low > high ? -low : high)
                                 : static_cast<double>(high) - static_cast<double>(low);
  const double step = width / steps;
  const P scale = static_cast<P>(step < kSmallestScale ? kSmallestScale : step);
  if (symmetric) return {scale, static_cast<P>(bits == 8 ? 128 : last_code(bits) / 2), last};
  const UniformGrid<P> at_zero{scale, P{0}, last};
  return {scale, at_zero.code(-low), last};
}

}  // namespace qn
