#include "quant/scalar_quantizer.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "ops/cpu/value_range.h"
#include "ops/uniform_grid.h"

namespace qn {
namespace {

using Range = cpu::ValueRange<float>;

void check_bits(int bits) {
  QN_CHECK(bits >= kMinScalarBits && bits <= kMaxScalarBits, "scalar quantization to {} bits: {} to {} are possible",
           bits, kMinScalarBits, kMaxScalarBits);
}

[[noreturn]] void refuse_not_finite(const float* weight, int64_t rows, int64_t cols) {
  const float* bad = std::find_if(weight, weight + rows * cols, [](float x) { return !std::isfinite(x); });
  const int64_t i = bad - weight;
  fail("scalar quantization: the value at row {}, column {} is {}; only finite values have a code", i / cols, i % cols,
       *bad);
}

std::vector<Range> row_ranges(const float* weight, int64_t rows, int64_t cols) {
  std::vector<Range> ranges(static_cast<size_t>(rows));
  cpu::parallel_rows(rows, cols,
                     [&](int64_t r) { ranges[static_cast<size_t>(r)] = cpu::range_of(weight + r * cols, cols); });
  const auto not_finite = [&](const Range& range) {
    return cols > 0 && !(std::isfinite(range.low) && std::isfinite(range.high));
  };
  if (std::any_of(ranges.begin(), ranges.end(), not_finite)) refuse_not_finite(weight, rows, cols);
  return ranges;
}

/// The part of the range that the search keeps.
Range searched(const float* weight, int64_t n, const Range& whole, int bits) {
  if (!(whole.low < whole.high)) return whole;
  const BinRange kept = search_bins(histogram_of(weight, n, whole.low, whole.high), last_code(bits) + 1);
  const double low = whole.low, width = (static_cast<double>(whole.high) - low) / static_cast<double>(kSearchBins);
  return {static_cast<float>(low + width * static_cast<double>(kept.first)),
          static_cast<float>(low + width * static_cast<double>(kept.last + 1))};
}

UniformGrid<float> grid_of_row(const ScalarGrid& grid, int64_t row) {
  const auto i = grid.scale.size() == 1 ? 0 : static_cast<size_t>(row);
  return {grid.scale[i], grid.zero_point[i], static_cast<float>(last_code(grid.bits))};
}

bool fits_rows(const ScalarGrid& grid, int64_t rows) {
  return grid.scale.size() == grid.zero_point.size() && (grid.scale.size() == 1 || std::ssize(grid.scale) == rows);
}

}  // namespace

ScalarGrid fit_grid(const float* weight, int64_t rows, int64_t cols, const ScalarOptions& options) {
  check_bits(options.bits);
  std::vector<Range> ranges = row_ranges(weight, rows, cols);
  if (options.method == RangeMethod::tensor || options.method == RangeMethod::histogram) {
    Range whole;
    for (const Range& range : ranges) whole.include(range);
    if (options.method == RangeMethod::histogram) whole = searched(weight, rows * cols, whole, options.bits);
    ranges = {whole};
  }
  ScalarGrid grid{options.bits, {}, {}};
  for (const Range& range : ranges) {
    const auto fitted = grid_of_range(range.low, range.high, options.bits, options.method == RangeMethod::channel);
    grid.scale.push_back(fitted.scale);
    grid.zero_point.push_back(fitted.zero_point);
  }
  return grid;
}

void check_grid(const ScalarGrid& grid, int64_t rows, const std::string& name) {
  QN_CHECK(grid.bits >= kMinScalarBits && grid.bits <= kMaxScalarBits,
           "quantized weight '{}': codes of {} bits; {} to {} are possible", name, grid.bits, kMinScalarBits,
           kMaxScalarBits);
  QN_CHECK(fits_rows(grid, rows),
           "quantized weight '{}': {} scales and {} zero points; one of each is due, or one per row ({})", name,
           grid.scale.size(), grid.zero_point.size(), rows);
  const int last = last_code(grid.bits);
  for (size_t i = 0; i < grid.scale.size(); ++i) {
    QN_CHECK(std::isfinite(grid.scale[i]) && grid.scale[i] > 0.0f,
             "quantized weight '{}': scale {} is {}; a positive number is due", name, i, grid.scale[i]);
    const float zero = grid.zero_point[i];
    QN_CHECK(zero >= 0.0f && zero <= static_cast<float>(last) && zero == std::floor(zero),
             "quantized weight '{}': zero point {} is {}; a whole number from 0 to {} is due", name, i, zero, last);
  }
}

void check_table(const ScalarTable& table, const std::string& name) {
  QN_CHECK(table.rows > 0 && table.cols > 0 && std::ssize(table.codes) == table.rows * table.cols,
           "quantized weight '{}': {} codes where {} x {} are due", name, table.codes.size(), table.rows, table.cols);
  check_grid(table.grid, table.rows, name);
  const int last = last_code(table.grid.bits);
  const auto largest = std::max_element(table.codes.begin(), table.codes.end());
  QN_CHECK(*largest <= last, "quantized weight '{}': code {} at element {}, but {} bits end at {}", name, *largest,
           largest - table.codes.begin(), table.grid.bits, last);
}

ScalarTable encode(const float* weight, int64_t rows, int64_t cols, ScalarGrid grid) {
  check_bits(grid.bits);
  QN_ASSERT(fits_rows(grid, rows));
  row_ranges(weight, rows, cols);  // refuses what is not finite
  ScalarTable table{rows, cols, std::move(grid), std::vector<uint8_t>(static_cast<size_t>(rows * cols))};
  cpu::parallel_rows(rows, cols, [&](int64_t r) {
    const UniformGrid<float> levels = grid_of_row(table.grid, r);
    const float* from = weight + r * cols;
    uint8_t* to = table.codes.data() + r * cols;
    for (int64_t c = 0; c < cols; ++c) to[c] = static_cast<uint8_t>(levels.index(from[c]));
  });
  return table;
}

template <typename T>
void decode(const ScalarTable& table, T* weight) {
  cpu::parallel_rows(table.rows, table.cols, [&](int64_t r) {
    const UniformGrid<float> row = grid_of_row(table.grid, r);
    const UniformGrid<T> levels{row.scale, row.zero_point, row.last};
    const uint8_t* from = table.codes.data() + r * table.cols;
    T* to = weight + r * table.cols;
    for (int64_t c = 0; c < table.cols; ++c) to[c] = levels.level(static_cast<T>(from[c]));
  });
}

template void decode(const ScalarTable&, float*);
template void decode(const ScalarTable&, double*);

std::vector<int64_t> histogram_of(const float* values, int64_t n, float low, float high) {
  QN_ASSERT(low < high);
  const double start = low, width = static_cast<double>(high) - start;
  std::vector<int64_t> counts(kSearchBins, 0);
#pragma omp parallel if (n > 1 << 16)
  {
    std::vector<int64_t> mine(kSearchBins, 0);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < n; ++i) {
      const auto bin = static_cast<int64_t>((static_cast<double>(values[i]) - start) / width * kSearchBins);
      ++mine[static_cast<size_t>(std::min(bin, kSearchBins - 1))];
    }
#pragma omp critical
    for (size_t b = 0; b < counts.size(); ++b) counts[b] += mine[b];
  }
  return counts;
}

}  // namespace qn
