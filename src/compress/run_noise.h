// The noise of a run: which rate it has in an update, and the codebooks of the forms that imitate product quantization.
// Rates are pure functions of the update's number; codebooks are made from the weights of all ranks alike, by a k-means
// that is shared out over the ranks, and are part of the checkpoint together with the codes, because they belong to the
// weights of some updates ago.
#pragma once

#include <functional>
#include <optional>

#include "comm/communicator.h"
#include "compress/kmeans_state.h"
#include "compress/noise.h"
#include "compress/replacement_noise.h"
#include "compress/row_importance.h"
#include "nn/module.h"

namespace qn {

struct RunNoiseOptions {
  uint64_t seed = 1;
  int64_t codebook_updates = 25;   ///< from one refresh to the next
  int64_t first_iterations = 15;   ///< of the k-means that makes a codebook
  int64_t refresh_iterations = 1;  ///< of one that starts from the codebook before
  int64_t total_updates = 0;       ///< of the run; 0: not known, and no schedule asks for it
  bool after_training = false;     ///< schedules are over: noise is as at their end
};

class RunNoise {
 public:
  /// `module` has the plan's noise; weights that cut ties bring get it when they come into being. Where `importance`
  /// says so, errors in some rows count for more, as they will when the weight is quantized.
  RunNoise(Module& module, Communicator& comm, const QuantizationPlan& plan, const RunNoiseOptions& options,
           RowImportance importance = {});

  /// Before the passes of the update that comes after `update` others, on every rank.
  void set_rates(int64_t update);
  /// Whether that update, whose rates are set, wants codebooks made or refreshed first.
  bool refresh_due(int64_t update) const;
  /// Does it; collective. `keep_going` is called on every rank after each k-means iteration. Where it gives false the
  /// refresh stops there, and the result is false: the same call goes on, also after save() and load().
  bool refresh(int64_t update, const std::function<bool()>& keep_going = {});

  /// Entries "noise/..." (docs/formats.md), nothing where no noise has a codebook.
  void save(StateDict& state) const;
  /// Codebooks of other sizes than the plan's are left out: they are made anew.
  void load(const StateDict& state);
  /// The centroids that are in a checkpoint, and nothing else of it.
  static StateDict codebooks_of(StateDict state);

 private:
  struct Noisy {
    const Weight* weight;
    ReplacementNoise* noise;
  };
  /// Those whose noise needs a codebook, in the module's order.
  std::vector<Noisy> with_codebook() const;
  /// Of these, whose noise is on.
  std::vector<Noisy> active() const;
  static std::vector<KMeansOf> kmeans_of(const std::vector<Noisy>& weights);
  std::vector<KMeansProblem> problems_of(const std::vector<Noisy>& weights);

  Module& module_;
  Communicator& comm_;
  QuantizationPlan plan_;
  RunNoiseOptions options_;
  RowImportances importances_;
  int64_t refreshed_ = -1;              // update of the last refresh
  std::optional<KMeansState> pending_;  // of the refresh in progress
};

}  // namespace qn
