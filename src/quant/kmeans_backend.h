// What of k-means touches the weights, and so depends on the memory that they are in. All backends give the same codes
// and the same sums, bit by bit: a k-means begun on one goes on unchanged on another.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "ops/kernels.h"
#include "quant/kmeans_kernel.h"

namespace qn {

/// One weight of a stage and this rank's part of it.
struct WeightShare {
  SubVectors vectors;          ///< data in the backend's memory; importances in the host's
  int64_t n_centroids = 1;     ///< K
  int64_t begin = 0, end = 0;  ///< this rank's sub-vectors

  int64_t count() const { return end - begin; }
  StatsLayout layout() const { return {n_centroids, vectors.dim, vectors.weights_per_cluster()}; }
};

/// Unweighted sums of squares over a rank's share of one weight.
struct SquaredErrors {
  double error = 0.0;     ///< of decoded - original
  double original = 0.0;  ///< of original
};

/// The shares of all weights of a stage, by number. Everything but the weights is in the host's memory.
class KMeansBackend {
 public:
  virtual ~KMeansBackend() = default;

  /// Largest magnitude in each share; infinity where a value is not a number.
  virtual std::vector<double> largest_magnitudes() = 0;
  /// Sub-vectors by number, of the whole weight: [numbers, dim].
  virtual std::vector<float> gather(size_t weight, std::span<const int64_t> numbers) = 0;
  /// SubVectors::max_abs and max_importance, due before the first assign().
  virtual void set_bounds(size_t weight, double max_abs, double max_importance) = 0;
  /// The E-step of the named weights, each under its own of `centroids` [K, dim] (by weight number, all weights):
  /// assign_range() for each share. `sums` becomes their sums, one weight after another in the order of `weights`, each
  /// laid out by its StatsLayout.
  virtual void assign(std::span<const size_t> weights, std::span<const std::vector<float>> centroids,
                      std::vector<double>& sums) = 0;
  /// Codes of a share after the last assign() of its weight.
  virtual std::vector<uint16_t> codes(size_t weight) = 0;
  /// Of every share, decoded from those codes and `centroids` [K, dim] (by weight number).
  virtual std::vector<SquaredErrors> squared_errors(std::span<const std::vector<float>> centroids) = 0;
};

/// The backend for weights in the memory of `kernels`: their own processor's where there is one, else (a device without
/// k-means of its own, or columns with importances, which only the CPU knows) the CPU on a copy. `kernels`, the
/// weights' and the importances' memory must outlive it.
std::unique_ptr<KMeansBackend> make_kmeans_backend(const Kernels& kernels, std::vector<WeightShare> shares);

}  // namespace qn
