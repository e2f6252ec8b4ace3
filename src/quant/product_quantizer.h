// A product-quantized weight: codes, centroids and counts, and what can be done with them without a model
// (fairseq semantics, "Iterative PQ" 3.1 and 3.3).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/enum_names.h"

namespace qn {

/// A weight [rows, cols] as one code per block of `block_size` columns. Block n = j * rows + r is
/// W[r, j*d : (j+1)*d]: block column j outer, row r inner.
struct PqTable {
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t block_size = 1;        ///< d
  int64_t n_centroids = 0;       ///< K <= 65536
  std::vector<float> centroids;  ///< [K, d]
  std::vector<uint16_t> codes;   ///< [rows * cols / d], each below K
  std::vector<int64_t> counts;   ///< [K]: blocks per centroid; 0 for centroids that no block uses

  int64_t blocks() const { return rows * cols / block_size; }
};

/// Throws qn::Error naming the weight when sizes do not fit together or a code is not below K: for tables from files.
void check_table(const PqTable& table, const std::string& name);

/// [K]: how often each code occurs. Every code must be below K.
std::vector<int64_t> count_codes(std::span<const uint16_t> codes, int64_t n_centroids);

/// The dense weight, `weight` [rows, cols], float or double.
template <typename T>
void decode(const PqTable& table, T* weight);

/// fairseq sums block gradients for linear layers and embeddings and averages them for convolutions; the paper
/// averages. `root` divides the sum of n gradients by sqrt(n), to a whole number: of gradients that have nothing to do
/// with each other it is as large for any n.
enum class CentroidGradient { sum, mean, root };
template <>
struct EnumNames<CentroidGradient> {
  static constexpr EnumName<CentroidGradient> kAll[] = {
      {CentroidGradient::sum, "sum"}, {CentroidGradient::mean, "mean"}, {CentroidGradient::root, "root"}};
};

/// What the sum of a centroid's gradients is divided by, from the numbers of blocks; empty for the sum itself.
std::vector<int64_t> gradient_divisors(std::span<const int64_t> counts, CentroidGradient mode);

/// Gradient of the centroids [K, d] from the gradient of the decoded weight [rows, cols]; adds to grad_centroids when
/// `accumulate`, else overwrites. The result does not depend on the number of threads.
template <typename T>
void centroid_gradient(const PqTable& table, const T* grad_weight, T* grad_centroids, bool accumulate,
                       CentroidGradient mode);

/// Codes of `weight` [rows, cols] under given centroids [K, d]: nearest by Euclidean distance, lowest index on ties.
PqTable encode(const float* weight, int64_t rows, int64_t cols, int64_t block_size, std::vector<float> centroids);

/// Copies codes between the numbering of PqTable (block column outer) and memory order (row outer).
std::vector<uint16_t> codes_from_memory_order(std::span<const uint16_t> codes, int64_t rows, int64_t blocks_per_row);

}  // namespace qn
