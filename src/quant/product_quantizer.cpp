#include "quant/product_quantizer.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "ops/cpu/pq_kernels.h"
#include "quant/kmeans_kernel.h"

namespace qn {

void check_table(const PqTable& table, const std::string& name) {
  QN_CHECK(table.rows > 0 && table.cols > 0 && table.block_size > 0 && table.cols % table.block_size == 0,
           "quantized weight '{}': size {} x {} does not divide into blocks of {} columns", name, table.rows,
           table.cols, table.block_size);
  QN_CHECK(table.n_centroids >= 1 && table.n_centroids <= 65536,
           "quantized weight '{}': {} centroids, 1..65536 allowed", name, table.n_centroids);
  const int64_t centroid_values = table.n_centroids * table.block_size;
  QN_CHECK(std::ssize(table.centroids) == centroid_values,
           "quantized weight '{}': {} centroid values where {} x {} are due", name, table.centroids.size(),
           table.n_centroids, table.block_size);
  QN_CHECK(std::ssize(table.codes) == table.blocks(), "quantized weight '{}': {} codes where {} blocks are due", name,
           table.codes.size(), table.blocks());
  const auto largest = std::max_element(table.codes.begin(), table.codes.end());
  QN_CHECK(*largest < table.n_centroids, "quantized weight '{}': code {} at block {}, but there are only {} centroids",
           name, *largest, largest - table.codes.begin(), table.n_centroids);
  QN_CHECK(std::ssize(table.counts) == table.n_centroids && table.counts == count_codes(table.codes, table.n_centroids),
           "quantized weight '{}': the counts do not belong to the codes", name);
}

std::vector<int64_t> count_codes(std::span<const uint16_t> codes, int64_t n_centroids) {
  std::vector<int64_t> counts(static_cast<size_t>(n_centroids), 0);
  for (const uint16_t code : codes) ++counts[code];
  return counts;
}

std::vector<int64_t> gradient_divisors(std::span<const int64_t> counts, CentroidGradient mode) {
  if (mode == CentroidGradient::sum) return {};
  std::vector<int64_t> divisors(counts.begin(), counts.end());
  if (mode == CentroidGradient::root)
    for (int64_t& n : divisors) n = std::llround(std::sqrt(static_cast<double>(n)));
  return divisors;
}

template <typename T>
void decode(const PqTable& table, T* weight) {
  if constexpr (std::is_same_v<T, float>) {
    cpu::pq_decode(weight, table.centroids.data(), table.codes.data(), table.rows, table.cols, table.block_size);
  } else {
    const std::vector<T> centroids(table.centroids.begin(), table.centroids.end());
    cpu::pq_decode(weight, centroids.data(), table.codes.data(), table.rows, table.cols, table.block_size);
  }
}

template <typename T>
void centroid_gradient(const PqTable& table, const T* grad_weight, T* grad_centroids, bool accumulate,
                       CentroidGradient mode) {
  const std::vector<int64_t> divisors = gradient_divisors(table.counts, mode);
  cpu::pq_centroid_grad(grad_centroids, accumulate ? 1.0f : 0.0f, grad_weight, table.codes.data(), table.rows,
                        table.cols, table.block_size, table.n_centroids, divisors.empty() ? nullptr : divisors.data());
}

template void decode(const PqTable&, float*);
template void decode(const PqTable&, double*);
template void centroid_gradient(const PqTable&, const float*, float*, bool, CentroidGradient);
template void centroid_gradient(const PqTable&, const double*, double*, bool, CentroidGradient);

PqTable encode(const float* weight, int64_t rows, int64_t cols, int64_t block_size, std::vector<float> centroids) {
  QN_CHECK(rows > 0 && cols > 0 && block_size > 0 && cols % block_size == 0,
           "encode: {} x {} does not divide into blocks of {} columns", rows, cols, block_size);
  const int64_t k = std::ssize(centroids) / block_size;
  QN_CHECK(k >= 1 && k <= 65536 && k * block_size == std::ssize(centroids),
           "encode: {} centroid values are not 1..65536 centroids of {}", centroids.size(), block_size);
  const int64_t blocks_per_row = cols / block_size;
  const SubVectors vectors{
      .data = weight, .count = rows * blocks_per_row, .dim = block_size, .blocks_per_row = blocks_per_row};
  std::vector<uint16_t> memory_order(static_cast<size_t>(vectors.count));
  assign_parallel(vectors, 0, vectors.count, CentroidTable(centroids, block_size), memory_order.data(), nullptr);
  PqTable table{
      rows, cols, block_size, k, std::move(centroids), codes_from_memory_order(memory_order, rows, blocks_per_row), {}};
  table.counts = count_codes(table.codes, k);
  return table;
}

std::vector<uint16_t> codes_from_memory_order(std::span<const uint16_t> codes, int64_t rows, int64_t blocks_per_row) {
  QN_ASSERT(std::ssize(codes) == rows * blocks_per_row);
  std::vector<uint16_t> result(codes.size());
  constexpr int64_t kTile = 64;  // both sides stay within a few cache lines
#pragma omp parallel for collapse(2) schedule(static) if (codes.size() > 1 << 16)
  for (int64_t r0 = 0; r0 < rows; r0 += kTile)
    for (int64_t j0 = 0; j0 < blocks_per_row; j0 += kTile)
      for (int64_t j = j0; j < std::min(blocks_per_row, j0 + kTile); ++j)
        for (int64_t r = r0; r < std::min(rows, r0 + kTile); ++r)
          result[static_cast<size_t>(j * rows + r)] = codes[static_cast<size_t>(r * blocks_per_row + j)];
  return result;
}

}  // namespace qn
