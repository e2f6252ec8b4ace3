#include "quant/value_histogram.h"

#include <algorithm>
#include <cmath>

#include "core/half.h"
#include "ops/cpu/value_range.h"
#include "quant/scalar_quantizer.h"

namespace qn {
namespace {

constexpr int64_t kZeroBin = ValueHistogram::kBins / 2;  // the first one that is not negative
constexpr int kHalfBits = 12;                            // 2^kHalfBits bins on each side of zero
static_assert(int64_t{1} << kHalfBits == kZeroBin);

std::vector<float> floats_of_half(const Tensor& values) {
  std::vector<float> result(static_cast<size_t>(values.elements()));
  const auto* from = static_cast<const uint16_t*>(values.data);
  std::transform(from, from + values.elements(), result.begin(), half_to_float);
  return result;
}

}  // namespace

/// The narrowest bins that reach as far as +- magnitude.
int ValueHistogram::exponent_for(double magnitude) {
  if (magnitude == 0.0) return kNarrowest;
  int exponent = 0;
  std::frexp(magnitude, &exponent);  // magnitude < 2^exponent
  return std::max(exponent - kHalfBits, kNarrowest);
}

int64_t ValueHistogram::bin_of(double value) const {
  return static_cast<int64_t>(std::floor(std::ldexp(value, -exponent_))) + kZeroBin;
}

void ValueHistogram::widen(int exponent) {
  if (exponent <= exponent_) return;
  const int shift = std::min(exponent - exponent_, kHalfBits + 1);
  std::vector<int64_t> wider(kBins, 0);
  for (int64_t b = 0; b < kBins; ++b)
    wider[static_cast<size_t>(((b - kZeroBin) >> shift) + kZeroBin)] += counts_[static_cast<size_t>(b)];
  counts_ = std::move(wider);
  exponent_ = exponent;
}

void ValueHistogram::cover(double low, double high) { widen(exponent_for(std::max(std::abs(low), std::abs(high)))); }

template <typename T>
void ValueHistogram::count(std::span<const T> values) {
  const auto n = std::ssize(values);
  cpu::ValueRange<cpu::ParameterOf<T>> range;
  cpu::parallel_chunks(n, [&](int64_t begin, int64_t end) {
    const auto part = cpu::range_of(values.data() + begin, end - begin);
#pragma omp critical(qn_value_histogram)
    range.include(part);
  });
  if (!std::isfinite(range.low) || !std::isfinite(range.high)) return;  // or there are none
  cover(static_cast<double>(range.low), static_cast<double>(range.high));
  const double per_bin = std::ldexp(1.0, -exponent_);  // products with powers of two are exact
#pragma omp parallel if (n > 1 << 16)
  {
    std::vector<int64_t> mine(kBins, 0);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < n; ++i) {
      const double value = static_cast<double>(static_cast<cpu::ParameterOf<T>>(values[static_cast<size_t>(i)]));
      ++mine[static_cast<size_t>(static_cast<int64_t>(std::floor(value * per_bin)) + kZeroBin)];
    }
#pragma omp critical(qn_value_histogram)
    for (size_t b = 0; b < counts_.size(); ++b) counts_[b] += mine[b];
  }
}

void ValueHistogram::add(const Tensor& values) {
  if (values.dtype == DType::f16) return count(std::span<const float>(floats_of_half(values)));
  cpu::dispatch_float(values.dtype, [&](auto tag) {
    const auto all = values.span<decltype(tag)>();
    count(std::span<const decltype(tag)>(all));
  });
}

ValueHistogram::Bounds ValueHistogram::search(double low, double high, int64_t levels) const {
  if (!(low < high)) return {low, high};
  const int64_t first = bin_of(low), last = bin_of(high);
  int64_t merged = 1;  // the search takes time by the square of the bins
  while ((last - first) / merged >= 2 * kSearchBins) merged *= 2;
  std::vector<int64_t> counts(static_cast<size_t>((last - first) / merged + 1), 0);
  for (int64_t b = first; b <= last; ++b)
    counts[static_cast<size_t>((b - first) / merged)] += counts_[static_cast<size_t>(b)];
  const BinRange kept = search_bins(counts, levels);
  const auto edge = [&](int64_t bin) {
    return std::ldexp(static_cast<double>(first + bin * merged - kZeroBin), exponent_);
  };
  return {kept.first == 0 ? low : edge(kept.first),
          kept.last + 1 == std::ssize(counts) ? high : std::min(edge(kept.last + 1), high)};
}

std::vector<ValueHistogram::Bounds> search_all(std::span<const RangeSearch> searches) {
  std::vector<ValueHistogram::Bounds> found(searches.size());
#pragma omp parallel for schedule(dynamic)
  for (size_t i = 0; i < searches.size(); ++i)
    found[i] = searches[i].histogram->search(searches[i].low, searches[i].high, searches[i].levels);
  return found;
}

}  // namespace qn
