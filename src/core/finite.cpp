#include "core/finite.h"

#include <algorithm>
#include <string_view>

namespace qn {
namespace {

/// `Bits` of a floating-point type are not finite where all bits of its exponent are set.
template <typename Bits>
int64_t find(const void* data, int64_t n, Bits exponent) {
  const auto* bits = static_cast<const Bits*>(data);
  constexpr int64_t kPiece = 4096;
  for (int64_t begin = 0; begin < n; begin += kPiece) {
    const int64_t end = std::min(n, begin + kPiece);
    unsigned found = 0;
    for (int64_t i = begin; i < end; ++i) found |= (bits[i] & exponent) == exponent ? 1U : 0U;
    if (found == 0) continue;
    for (int64_t i = begin; i < end; ++i)
      if ((bits[i] & exponent) == exponent) return i;
  }
  return -1;
}

struct Layout {
  uint64_t exponent, mantissa, sign;
};

Layout layout_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return {0x7ff0000000000000, 0x000fffffffffffff, 0x8000000000000000};
    case DType::bf16:
      return {0x7f80, 0x007f, 0x8000};
    case DType::f16:
      return {0x7c00, 0x03ff, 0x8000};
    default:
      return {0x7f800000, 0x007fffff, 0x80000000};
  }
}

uint64_t bits_at(const Tensor& t, int64_t i) {
  if (t.dtype == DType::f64) return static_cast<const uint64_t*>(t.data)[i];
  if (t.dtype == DType::f32) return static_cast<const uint32_t*>(t.data)[i];
  return static_cast<const uint16_t*>(t.data)[i];
}

}  // namespace

int64_t first_non_finite(const Tensor& host) {
  const uint64_t exponent = layout_of(host.dtype).exponent;
  switch (host.dtype) {
    case DType::f64:
      return find<uint64_t>(host.data, host.elements(), exponent);
    case DType::f32:
      return find<uint32_t>(host.data, host.elements(), static_cast<uint32_t>(exponent));
    case DType::bf16:
    case DType::f16:
      return find<uint16_t>(host.data, host.elements(), static_cast<uint16_t>(exponent));
    default:
      return -1;
  }
}

std::string describe_non_finite(const Tensor& host) {
  const int64_t at = first_non_finite(host);
  if (at < 0) return {};
  const Layout layout = layout_of(host.dtype);
  const uint64_t bits = bits_at(host, at);
  const std::string_view value = (bits & layout.mantissa) != 0 ? "nan" : (bits & layout.sign) != 0 ? "-inf" : "inf";
  return fmt::format("{} at element {} of {}", value, at, host.elements());
}

}  // namespace qn
