// What a run learns (fairseq's term): a task opens its data, builds its module, makes micro-batches, gives the loss,
// evaluates, and has its part of the checkpoint. Trainer, stages of quantization, checkpoints and packing know modules
// and tasks only.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "nn/module.h"
#include "nn/state_dict.h"

namespace qn {

/// Part of an update, ready to go through the module.
struct MicroBatch {
  /// The natural-log losses of all samples (f64); registers the backward of their sum on the tape. May be called more
  /// than once.
  std::function<Tensor(Tape&)> losses;
  int64_t sample_size = 0;  ///< what the update's loss is divided by: target tokens, sentences, images
  int64_t tokens = 0;       ///< that the module goes through, padding not counted; 0 where there are none
  bool host_reads = false;  ///< losses() reads results of kernels on the host
};

struct Metric {
  std::string name;
  double value = 0.0;
  bool higher_is_better = false;
  std::string title = {};  ///< for people, where it is not the name: "perplexity"
  int digits = 4;          ///< after the point that are worth reading

  const std::string& title_or_name() const { return title.empty() ? name : title; }
};

/// What an evaluation found, all ranks together.
struct Evaluation {
  double loss = 0.0;  ///< natural log, summed
  int64_t sample_size = 0;
  /// The first one decides which checkpoint is best. The last one is for people, unless they, too, want the first one
  /// to be high.
  std::vector<Metric> metrics;

  double base2() const;  ///< bits per sample
  const Metric& decisive() const { return metrics.front(); }
  const Metric& headline() const { return decisive().higher_is_better ? decisive() : metrics.back(); }
  /// The loss and every metric are; a model whose are not is of no use.
  bool finite() const;
  /// Throws qn::InternalError when there is no such metric.
  double at(const std::string& name) const;
  std::string text() const;  ///< "loss 5.1234 | ppl 34.87"
};

/// What a task's samples are called.
struct SampleWords {
  std::string one = "sample";       ///< "2.1 GFLOP per token"
  std::string many = "samples";     ///< the counter in metrics.jsonl: "tokens"
  std::string briefly = "samples";  ///< "4,120 tok/s"
};

/// "ppl 34.87"
std::string text_of(const Metric& metric);
/// "34.87"; of a million and more "1.07e+09".
std::string value_text(const Metric& metric);
/// "loss 5.1234 | ppl 34.87"
std::string text_of(const std::vector<Metric>& metrics);

/// Whether two evaluations found the same but for the order of floating-point sums. NaN equals nothing.
bool agree(const Evaluation& a, const Evaluation& b);

class Task {
 public:
  virtual ~Task() = default;
  virtual Module& module() = 0;
  const Module& module() const { return const_cast<Task*>(this)->module(); }

  virtual SampleWords sample_words() const { return {}; }
  /// What the mean loss of an update, in bits per sample, means in other numbers, for the log and metrics.jsonl.
  virtual std::vector<Metric> training_metrics(double loss_base2) const {
    (void)loss_base2;
    return {};
  }

  /// Opens what training needs; called once, before anything below.
  virtual void open_training() = 0;
  /// Throws qn::UsageError where training samples lack what updates learn from; asked before the first one, unless all
  /// that they learn is a teacher's answers.
  virtual void check_targets() const {}
  /// A line of the log about the training data, for updates of so many micro-batches.
  virtual std::string describe_data(int64_t micro_batches) const = 0;

  /// Draws the next update; returns the number of its micro-batches: at most `micro_batches`, fewer at the end of an
  /// epoch. The same on every rank.
  virtual int64_t next_update(int64_t micro_batches) = 0;
  /// The update drawn last is not made: next_update() draws it again, and until then all is as before it was drawn.
  virtual void put_back_update() = 0;
  /// From here on, micro_batch() gives those of the update that was drawn before the last one. False where that cannot
  /// be done.
  virtual bool step_back() { return false; }
  /// Updates of so many micro-batches that make an epoch; 0 where nobody can tell.
  virtual int64_t updates_per_epoch(int64_t micro_batches) const {
    (void)micro_batches;
    return 0;
  }
  /// Micro-batch `index` of the update that next_update() has drawn. What is random in it (masking, augmentation)
  /// depends on `key` only. It lives until the next call.
  virtual MicroBatch micro_batch(int64_t index, const RandomKey& key) = 0;
  /// Number `i` of `count` micro-batches that stand for all of the training data: what a pass over them costs is what
  /// an average pass costs. Lives until the next call.
  virtual MicroBatch example(int64_t i, int64_t count) = 0;
  virtual int64_t epoch() const = 0;      ///< of the update that was drawn last; from 1
  virtual bool end_of_epoch() const = 0;  ///< it was the epoch's last

  /// Scores the validation data with activations of type `dtype`; collective. Every sample counts exactly once.
  virtual Evaluation evaluate(const Kernels& kernels, Communicator& comm, DType dtype) = 0;

  /// The task's part of a checkpoint: where it is in its data, and what its data and names are.
  virtual void save(StateDict& state) const = 0;
  /// Goes on from there. Throws qn::Error when the data are not those of the checkpoint.
  virtual void load(const StateDict& state) = 0;
  /// Throws qn::Error when weights of `state` belong to other data (another dictionary, other labels) or to another
  /// function of the same shapes (attention heads, activation).
  virtual void check_weights(const StateDict& state) const = 0;

  /// Makes weights of another run, which check_weights() has found good, those of this module: where the module has
  /// something of its own on purpose (a head for other classes), what it was initialised with takes their place.
  virtual void adapt_weights(StateDict& state) const { (void)state; }
  /// The same for a model that is to be compressed, of which nothing begins anew. Throws qn::Error where what it was
  /// trained for is not what these data are.
  virtual void adapt_whole_weights(StateDict& state) const { (void)state; }

  /// Leaves only these layers of the module whose checkpoint `state` is, as if it had never had others.
  /// `layers_to_keep` is checkpoint.layers_to_keep. Throws UsageError when it does not fit the module.
  virtual void prune(StateDict& state, const std::string& layers_to_keep) const {
    (void)state;
    throw UsageError("checkpoint.layers_to_keep: '" + layers_to_keep +
                     "': this kind of network has no layers to leave out");
  }

  /// From now on micro_batch() learns from model files, too: with `weight`, from the targets with the rest to 1. Throws
  /// qn::UsageError when a file is none, or for another task.
  virtual void learn_from(const std::vector<std::string>& files, double weight, const Kernels& kernels) {
    (void)files, (void)weight, (void)kernels;
    throw UsageError("ipq.teacher: this task does not learn from other models");
  }

  /// Relative importance of every row of a weight for k-means, mean 1; empty where all rows are alike. `exponent` is
  /// ipq.frequency_exponent.
  virtual std::vector<float> row_importance(const Weight& weight, double exponent) const {
    (void)weight, (void)exponent;
    return {};
  }
};

}  // namespace qn
