// Iterative product quantization as a resumable state machine: (stages done, k-means iteration) plus the codes of
// every quantized weight (reference section 3).
#pragma once

#include <functional>
#include <map>
#include <optional>

#include "comm/communicator.h"
#include "compress/ipq_config.h"
#include "compress/plan.h"
#include "compress/pq_weight.h"
#include "nn/module.h"
#include "nn/state_dict.h"
#include "quant/kmeans.h"

namespace qn {

/// Stages, block sizes and K for the weights of a model. Throws qn::Error for patterns that match nothing etc.
QuantizePlan make_ipq_plan(const IpqConfig& config, const WeightSet& weights);

/// What a stage did, for the report.
struct StageReport {
  int64_t stage = 0;
  int64_t weights = 0;
  double relative_error = 0.0;  ///< norm of (decoded - original) over norm of original, over all weights of the stage
  int64_t splits = 0;           ///< empty clusters resolved
  double seconds = 0.0;
};

class IpqMachine {
 public:
  /// `row_importance` gives the relative importance of a weight's rows for k-means, mean 1, or nothing where all are
  /// alike; needed by run_stage() only.
  IpqMachine(const IpqConfig& config, Module& model, Communicator& comm, uint64_t seed,
             std::function<std::vector<float>(const Weight&)> row_importance = {});

  const QuantizePlan& plan() const { return plan_; }
  int64_t stages() const { return static_cast<int64_t>(plan_.stages.size()); }
  int64_t stages_done() const { return stages_done_; }

  /// Quantizes the next stage's weights and re-lays the store out. `keep_going(iteration)` is called on every rank
  /// after each k-means iteration (the place to checkpoint); false stops between iterations, and nothing is returned.
  std::optional<StageReport> run_stage(const std::function<bool(int64_t)>& keep_going);

  void save(StateDict& state) const;
  /// Brings the model's structure to where the state was: quantized weights have their codes, the store is laid out
  /// anew; parameter values are loaded by the caller afterwards.
  void load(const StateDict& state);

 private:
  std::vector<KMeansProblem> problems_of(int64_t stage);
  std::span<const float> row_importance_of(const Weight& weight);
  StageReport apply(int64_t stage, std::vector<WeightResult> results, std::span<const SquaredErrors> errors);
  void represent(const PlannedWeight& planned, PqTable table, RepresentationSwap& swap);

  IpqConfig config_;
  Module& model_;
  Communicator& comm_;
  uint64_t seed_;
  QuantizePlan plan_;
  int64_t stages_done_ = 0;
  std::optional<KMeansState> pending_;  // of the stage that is being quantized
  std::function<std::vector<float>(const Weight&)> row_importance_;
  std::map<const Weight*, std::vector<float>> importances_;  // of the weights that were asked for
};

}  // namespace qn
