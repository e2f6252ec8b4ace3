// What the finetuning after a stage leaves behind: averages of what is trained, and of the models that were validated
// the best one.
#pragma once

#include <cstdint>
#include <optional>

#include "nn/module.h"
#include "nn/state_dict.h"
#include "train/model_average.h"
#include "train/task.h"

namespace qn {

class StageModel {
 public:
  StageModel(Module& module, double average_decay, bool keep_best)
      : module_(module), decay_(average_decay), keep_best_(keep_best) {}

  bool keeps_best() const { return keep_best_; }
  /// Between begin() and finish().
  bool active() const { return active_; }
  /// A stage's finetuning begins: parameters have been laid out anew.
  void begin();
  /// After an update.
  void add_update();
  /// Null where there is none.
  ModelAverage* average() { return average_ ? &*average_ : nullptr; }
  /// The module, averages in place, was evaluated after so many updates. Remembers it if it is the best of the stage.
  void record(const Evaluation& found, int64_t update);
  /// The stage's finetuning is over: the module becomes the best one, or the average. `evaluation` is that of the
  /// module, averages in place, before and after; nothing where it is not known.
  void finish(std::optional<Evaluation>& evaluation);

  /// As entries "stage_model/...".
  void save(StateDict& state) const;
  void load(const StateDict& state);

 private:
  Module& module_;
  double decay_;
  bool keep_best_;
  bool active_ = false;
  int64_t updates_ = 0;  // in the average
  std::optional<ModelAverage> average_;
  struct Best {
    int64_t update = 0;
    Metric metric;
    std::optional<Evaluation> evaluation;  // unless it is that of a checkpoint
    StateDict state;                       // of the module, codes included
  };
  std::optional<Best> best_;
};

}  // namespace qn
