// What a run tells about its speed and memory: the model's operations per token, the rate of matrix products that its
// devices really reach, the share of that rate the training uses, and where the memory goes.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "comm/communicator.h"
#include "core/arena.h"
#include "ops/dry_work.h"
#include "train/optimizer.h"
#include "train/trainer_config.h"
#include "train/update.h"

namespace qn {

/// What forward and backward of some micro-batches ask of the kernels.
struct PassWork {
  double flops = 0.0;  ///< of matrix products and attention, as ops/work.h counts them
  int64_t sample_size = 0;
  ProductShape product;  ///< the one that most operations go into
};

/// Goes through the passes of `count` micro-batches, those of fetch(i), without computing them. A model without
/// frequency bands does 6 P + 6 L D (T + 1) per token, P being the elements of the matrices that a token is multiplied
/// with, L D (T + 1) attention in L layers of width D over blocks of T tokens; with bands the work depends on the
/// words, so the micro-batches should be like those of the run.
PassWork measure_work(Module& module, const Kernels& kernels, DType dtype, int64_t count,
                      const std::function<MicroBatch(int64_t)>& fetch);

struct MatmulRate {
  ProductShape product;  ///< what was measured
  double flops_per_second = 0.0;
};
/// Rate of a product, or of one with shorter sides where it is a large one, on random values of type `dtype`. Takes
/// about 0.2 seconds. The fastest of several batches of calls counts: what disturbs the measurement must not make the
/// training look better.
MatmulRate measure_matmul_rate(const ProductShape& product, const Kernels& kernels, DType dtype);

/// The speed of one run; see TrainConfig::measure_matmul.
class Throughput {
 public:
  /// `work` of micro-batches like those of the run. Collective: all ranks measure at the same time, and their rates are
  /// added up.
  Throughput(const PassWork& work, const TrainConfig& config, const Kernels& kernels, DType dtype, Communicator& comm);

  double flops_per_sample() const { return flops_per_sample_; }
  double matmul_rate() const { return matmul_rate_; }  ///< of all ranks, per second; 0: not measured
  /// Share of the measured rate that an update of so many samples used; 0 when nothing was measured.
  double utilisation(int64_t samples, double seconds) const;
  /// A line of the log for what the constructor found; `sample` is the task's word for one.
  std::string text(const std::string& sample) const;

 private:
  double flops_per_sample_ = 0.0, matmul_rate_ = 0.0;
  int ranks_ = 1;
  std::string product_;  // what was measured
};

/// This rank's memory by what it is for, and what its GPU has left: "parameters 942.0 MiB, gradients ..., optimizer
/// ..., activations ...". Meaningful after the first update, when the arenas have their size.
/// `average` may be null.
std::string memory_text(const ParameterStore& store, const Optimizer& optimizer, const ModelAverage* average,
                        const Arena& activations, const Kernels& kernels);

}  // namespace qn
