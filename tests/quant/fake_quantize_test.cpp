// The kernels of training against the quantizer of files: what is trained with is what is stored.
#include <gtest/gtest.h>

#include <cstring>

#include "ops/kernels.h"
#include "quant/scalar_quantizer.h"
#include "quant_data.h"

namespace qn::test {
namespace {

using Floats = std::vector<float>;

constexpr int64_t kRows = 41, kCols = 123;
constexpr RangeMethod kMinMaxMethods[] = {RangeMethod::tensor, RangeMethod::channel, RangeMethod::channel_affine};

testing::AssertionResult same_bits(const Floats& a, const Floats& b) {
  if (a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0)
    return testing::AssertionSuccess();
  return testing::AssertionFailure() << "bits differ";
}

/// The grid by way of the kernels.
ScalarGrid by_kernels(Floats& w, int bits, RangeMethod method) {
  const int64_t n = method == RangeMethod::tensor ? 1 : kRows;
  ScalarGrid grid{bits, Floats(static_cast<size_t>(n)), Floats(static_cast<size_t>(n))};
  Floats range(static_cast<size_t>(2 * n));
  const Tensor bounds = view_of(range.data(), {n, 2});
  cpu_kernels().value_range(bounds, view_of(w.data(), {kRows, kCols}), false);
  cpu_kernels().range_to_grid(view_of(grid.scale.data(), {n}), view_of(grid.zero_point.data(), {n}), bounds, bits,
                              method == RangeMethod::channel);
  return grid;
}

TEST(FakeQuantize, KernelsFitTheQuantizersGrid) {
  Floats w = random_weight(kRows * kCols, "grid");
  for (int bits = kMinScalarBits; bits <= kMaxScalarBits; ++bits)
    for (const RangeMethod method : kMinMaxMethods) {
      const ScalarGrid expected = fit_grid(w.data(), kRows, kCols, {bits, method}), grid = by_kernels(w, bits, method);
      EXPECT_TRUE(same_bits(grid.scale, expected.scale));
      EXPECT_TRUE(same_bits(grid.zero_point, expected.zero_point));
    }
}

TEST(FakeQuantize, OfEverythingIsWhatTheCodesSay) {
  Floats fitted = random_weight(kRows * kCols, "fitted"), w = random_weight(kRows * kCols, "w", 1.3);
  for (int bits = kMinScalarBits; bits <= kMaxScalarBits; ++bits)
    for (const RangeMethod method : all_values<RangeMethod>()) {
      const ScalarGrid grid = fit_grid(fitted.data(), kRows, kCols, {bits, method});
      Floats expected(w.size()), y(w.size());
      decode(encode(w.data(), kRows, kCols, grid), expected.data());
      const auto n = static_cast<int64_t>(grid.scale.size());
      cpu_kernels().fake_quantize(view_of(y.data(), {kRows, kCols}), view_of(w.data(), {kRows, kCols}),
                                  view_of(grid.scale.data(), {n}), view_of(grid.zero_point.data(), {n}), bits, 1.0, 1,
                                  {});
      EXPECT_TRUE(same_bits(y, expected)) << bits << " bits, " << name_of(method);
    }
}

}  // namespace
}  // namespace qn::test
