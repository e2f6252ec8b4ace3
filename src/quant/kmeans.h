// Distributed k-means over the sub-vectors of many weights at once (fairseq semantics, "Iterative PQ" 3.2).
//
// Every rank holds every weight and assigns its share of each weight's sub-vectors, where the weights are (see
// kmeans_backend.h); sums travel in one reduction per iteration for all weights together, then every rank takes the
// same M-step on the host. Because sums are exact (see kmeans_kernel.h), centroids and codes are bitwise the same on
// any number of ranks and threads, on CPUs and GPUs.
//
// One iteration: E-step (nearest centroid, lowest index on ties); empty clusters are resolved, each attempt repeating
// the E-step; M-step (arithmetic mean, or weighted mean under importances); objective. The final codes are those
// of the last E-step, so every centroid in use is exactly the mean of its blocks.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "quant/kmeans_backend.h"
#include "quant/product_quantizer.h"

namespace qn {

/// One weight to quantize. The memory behind the pointers must outlive the StageKMeans; the weight's is the backend's,
/// the importances' the host's.
struct KMeansProblem {
  std::string name;               ///< keys the random choices: the same name and seed give the same start
  const float* weight = nullptr;  ///< [rows, cols]
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t block_size = 8;                      ///< d, divides cols
  int64_t n_centroids = 256;                   ///< K; capped by capped_centroids unless initial centroids are given
  std::vector<float> initial_centroids = {};   ///< optional [K, d]; else distinct sub-vectors are drawn
  std::span<const float> row_importance = {};  ///< optional [rows]: factor of each row's squared error, >= 0
  std::span<const float> column_importance =
      {};  ///< optional [cols]: the same of each column, whose centroids' elements
           ///< are then means of their own; by the CPU, wherever the weight is
};

struct KMeansOptions {
  int64_t iterations = 15;
  uint64_t seed = 0;
  uint32_t stage = 0;  ///< part of the random key
};

/// Everything a stopped k-means needs to go on bit-exactly: for checkpoints. Vectors are indexed by problem.
struct KMeansState {
  int64_t iteration = 0;                                ///< completed iterations
  std::vector<std::vector<float>> centroids;            ///< [K, d] after the last M-step
  std::vector<std::vector<float>> assigning_centroids;  ///< [K, d] that the last E-step used: they define the codes
  std::vector<std::vector<double>> objective_history;   ///< (weighted) norm of decoded - original after each M-step
  std::vector<int64_t> splits;                          ///< clusters split so far to fill empty ones
};

struct WeightResult {
  PqTable table;
  double objective = 0.0;      ///< the last of objective_history
  int64_t resolved_empty = 0;  ///< splits over all iterations
  int64_t still_empty = 0;     ///< centroids without blocks: fewer distinct sub-vectors than K
};

/// K that a weight of `blocks` sub-vectors may have: at most blocks / 4, at least 1. With fewer blocks per centroid,
/// codes plus centroids hardly save anything and empty clusters abound ("And the Bit Goes Down" uses the same cap).
int64_t capped_centroids(int64_t blocks, int64_t n_centroids);

class StageKMeans {
 public:
  /// All ranks must pass equal problems, with weights in the memory of `kernels`. Draws the initial centroids. Throws
  /// qn::Error naming the weight when sizes do not fit or a value is not finite (on every rank alike).
  StageKMeans(std::vector<KMeansProblem> problems, KMeansOptions options, Communicator& comm,
              const Kernels& kernels = cpu_kernels());

  /// One iteration of all weights together; collective. False once options.iterations are done (the call that finds
  /// nothing to do changes nothing).
  bool step();
  const KMeansState& state() const { return state_; }
  /// Continues from a stored state. Throws qn::Error when it does not fit the problems.
  void restore(KMeansState state);
  /// The quantized weights, in problem order, the same on every rank; collective. At least one iteration must be done.
  std::vector<WeightResult> finish();
  /// Of the weights that finish() gave, summed over all ranks; collective, after finish(). Equal to rounding on any
  /// number of ranks and any backend: for reports.
  std::vector<SquaredErrors> squared_errors();

 private:
  struct Layer {
    WeightShare share;
    StatsLayout layout;
    std::vector<double> stats;  ///< sums over all ranks
  };

  void prepare_layers(const Kernels& kernels);
  void check_values();
  void draw_initial_centroids(size_t index);
  void assign(std::span<const size_t> layers);
  void resolve_empty_clusters();
  bool split_into_empty(size_t index, uint32_t attempt);
  void update_centroids(size_t index);
  std::vector<uint16_t> gather_codes(size_t index);

  std::vector<KMeansProblem> problems_;
  KMeansOptions options_;
  Communicator& comm_;
  std::vector<Layer> layers_;
  std::unique_ptr<KMeansBackend> backend_;
  std::vector<size_t> all_layers_;
  std::vector<double> reduction_;
  KMeansState state_;
  bool codes_current_ = false;
};

}  // namespace qn
