// Iterative product quantization as a resumable state machine: (stages done, k-means iteration) plus the codes of
// every quantized weight (reference section 3).
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "compress/input_importance.h"
#include "compress/ipq_config.h"
#include "compress/representation.h"
#include "compress/row_importance.h"
#include "compress/run_plan.h"
#include "nn/module.h"
#include "nn/state_dict.h"
#include "quant/kmeans.h"
#include "quant/row_scales.h"

namespace qn {

/// Brings a laid out, dense module to the structure of a checkpoint: weights of finished stages have their codes, cut
/// ties are cut, the store is laid out anew. What is trained is loaded by the caller afterwards. Returns the number of
/// finished stages, 0 for states of runs that do not quantize.
/// Latent values (CodeTraining) are for runs that go on training.
int64_t restore_quantized(Module& module, const QuantizationPlan& plan, CentroidGradient gradient,
                          const StateDict& state, bool latent = false);

/// The codes of all weights that have some, as entries "ipq/codes/...", and taking them back where they may change.
void save_codes(const Module& module, StateDict& state);
void load_codes(Module& module, const StateDict& state);

/// What a stage did, for the report.
struct StageReport {
  int64_t stage = 0;
  int64_t weights = 0;
  double relative_error = 0.0;  ///< norm of (decoded - original) over norm of original, over all weights of the stage
  int64_t splits = 0;           ///< empty clusters resolved
  double seconds = 0.0;
  int64_t iterations = 0;                         ///< of its k-means; 0: no weight has one
  std::map<std::string, double> objectives = {};  ///< of the weights that have, in the end; see kmeans_objectives()
};

class IpqMachine {
 public:
  /// `module` has the plan's noise. `row_importance` is asked once per weight, when its stage begins.
  IpqMachine(const IpqConfig& config, Module& module, Communicator& comm, uint64_t seed, QuantizationPlan plan,
             RowImportance row_importance = {});

  const QuantizationPlan& plan() const { return plan_; }
  int64_t stages() const { return plan_.stages; }
  int64_t stages_done() const { return stages_done_; }
  /// Finished iterations of a k-means in progress; 0: none is.
  int64_t kmeans_iteration() const { return pending_ ? pending_->iteration : 0; }
  int64_t kmeans_iterations() const { return config_.kmeans_iterations; }
  /// The objective of every weight of the k-means in progress after its newest iteration: the (weighted) norm of
  /// decoded - original.
  std::map<std::string, double> kmeans_objectives() const;

  /// The weights of the next stage whose k-means can take importances of columns, and what they are from now on. They
  /// must be the same for all iterations of a k-means, also where it was stopped in between.
  std::vector<std::string> weights_with_columns() const;
  void set_column_importances(ColumnImportances importances) { columns_ = std::move(importances); }

  /// Quantizes the next stage's weights and re-lays the store out. `keep_going(iteration)` is called on every rank
  /// after each k-means iteration (the place to checkpoint); false stops between iterations, and nothing is returned.
  std::optional<StageReport> run_stage(const std::function<bool(int64_t)>& keep_going = {});

  /// Has the k-means of weights that `state` has codebooks of noise for (entries of RunNoise::save()), of the shape
  /// that they will be quantized to, start from these: in training the weights have learned to be quantized so. Every
  /// rank gives the same. For a run that starts.
  void start_from_noise(const StateDict& state);
  /// Moves blocks of the weights quantized so far to better centroids (ipq.reassign_*); returns how many. To be called
  /// between updates, on every rank.
  int64_t move_codes();

  void save(StateDict& state) const;
  /// Brings the module's structure to where the state was: quantized weights have their codes, the store is laid out
  /// anew; parameter values are loaded by the caller afterwards.
  void load(const StateDict& state);

 private:
  void read_starts(const StateDict& state, const char* prefix);
  /// `scaled` becomes what the problems of weights with row scales point to.
  std::vector<KMeansProblem> problems_of(const std::vector<WeightPlan>& weights, std::vector<ScaledRows>& scaled);
  /// The k-means of the stage in progress; false when it was stopped.
  bool run_kmeans(const std::vector<WeightPlan>& weights, const std::function<bool(int64_t)>& keep_going,
                  StageReport& report, SquaredErrors& errors, RepresentationSwap& swap);
  /// What the k-means of a weight has found; with row scales they are fitted, and errors counted, here.
  QuantizedTensor fitted(const WeightPlan& planned, PqTable table, SquaredErrors& errors);
  QuantizedTensor quantize(const WeightPlan& planned, SquaredErrors& errors);
  std::span<const float> columns_of(const std::string& weight) const;

  IpqConfig config_;
  Module& module_;
  Communicator& comm_;
  uint64_t seed_;
  QuantizationPlan plan_;
  int64_t stages_done_ = 0;
  std::map<std::string, std::vector<float>> starts_;  // of k-means, by weight
  std::optional<KMeansState> pending_;                // of the stage that is being quantized
  RowImportances importances_;
  ColumnImportances columns_;  // of the next stage's weights
};

}  // namespace qn
