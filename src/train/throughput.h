// What a run tells about its speed and memory: the model's operations per token, the rate of matrix products that its
// devices really reach, the share of that rate the training uses, and where the memory goes.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "core/arena.h"
#include "train/optimizer.h"
#include "train/run_config.h"

namespace qn {

/// Multiplications and additions that forward and backward of one target token need, in blocks of `time` tokens:
///
///     6 P + 6 L D (T + 1)
///
/// P counts the elements of all matrices that a token is multiplied with: two operations each in the forward pass and
/// four in the backward. Token tables count where they are the softmax's matrix, not where rows are looked up; matrices
/// of a frequency band count with the share of tokens in the band, from `counts`, the occurrences of every word in the
/// training text. The second term is attention in L layers of width D: every query meets (T + 1) / 2 keys, in two
/// products forward and four backward. What a backward computes again, and everything that is no product, is left out.
double model_flops_per_token(const ModelConfig& config, int64_t vocabulary, int64_t time,
                             std::span<const int64_t> counts);

/// Rate of [rows, width] x [ffn_dim, width]^T, the model's most frequent product, on random values of type `dtype`:
/// operations per second. Takes about 0.2 seconds; on the CPU with fewer rows. The fastest of several batches of calls
/// counts: what disturbs the measurement must not make the training look better.
double measure_matmul_rate(const ModelConfig& config, const Kernels& kernels, DType dtype, int64_t rows);

/// The figures of one run; see TrainConfig::measure_matmul.
class Throughput {
 public:
  /// Collective: all ranks measure at the same time, and their rates are added up. `counts` is asked on rank 0 only.
  Throughput(const RunConfig& config, int64_t vocabulary, const std::function<std::vector<int64_t>()>& counts,
             const Kernels& kernels, DType dtype, Communicator& comm);

  double flops_per_token() const { return flops_per_token_; }  ///< rank 0; 0 elsewhere
  double matmul_rate() const { return matmul_rate_; }          ///< of all ranks, per second; 0: not measured
  /// Share of the measured rate that an update of `tokens` target tokens used; 0 when nothing was measured.
  double utilisation(int64_t tokens, double seconds) const;
  /// A line of the log for what the constructor found.
  std::string text() const;

 private:
  double flops_per_token_ = 0.0, matmul_rate_ = 0.0;
  int ranks_ = 1;
  std::string product_;  // what was measured
};

/// This rank's memory by what it is for, and what its GPU has left: "parameters 942.0 MiB, gradients ..., optimizer
/// ..., activations ...". Meaningful after the first update, when the arenas have their size.
std::string memory_text(const ParameterStore& store, const Optimizer& optimizer, const Arena& activations,
                        const Kernels& kernels);

}  // namespace qn
