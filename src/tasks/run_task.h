// A task that the program can run by name: made from a configuration or from a model file, packed, and evaluated from
// what was written. tasks/run.* finds the kind of task that a configuration or a file is for.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "compress/packed_model.h"
#include "data/vocabulary.h"
#include "tasks/run_config.h"
#include "train/metrics_log.h"
#include "train/task.h"

namespace qn {

/// What `eval` found, in the task's words.
struct EvalReport {
  std::string amount;               ///< "245,569 tokens": what was scored
  std::string result;               ///< "loss 5.1234 bits, perplexity 34.87"
  std::vector<MetricField> fields;  ///< the same for programs, in the order to print them
};

/// What a model says of a line of text.
struct Prediction {
  std::string label;                                          ///< the most likely class; a regression's number
  std::vector<std::pair<std::string, double>> probabilities;  ///< of every class; none for a regression
};

/// A text that a model wrote: a translation, or what goes on from a prompt.
struct Generated {
  std::string text;
  double score = 0.0;                ///< see beam_search(); of a sampled text the sum of `token_scores`
  std::vector<double> token_scores;  ///< log p of every token behind those before it, the end mark's included
  bool finished = true;              ///< it ends with an end mark, and not because it was long enough
};

struct GenerateConfig;  // tasks/generate_config.h

/// What `generate` made of a split, and how that compares with its translations.
struct TranslationReport {
  std::vector<std::string> lines;  ///< the best translation of each
  EvalReport report;
};

/// Beside what follows, a kind of task has four static functions (TaskKind in tasks/run.cpp). One made from a file has
/// a module and no training data.
class RunTask : public Task {
 public:
  /// What a packed file must say to build the module again, under names of the task's choice except for "model", the
  /// section of the configuration, and "task", likewise, which may be left out for the default task of the model.
  virtual PackedMetadata packed_metadata() const = 0;

  /// What turns text into the module's tokens and back, as a packed file can carry it. `data` as in predict(). Throws
  /// qn::Error naming what is missing or wrong, and UsageError where a task has no such thing.
  virtual VocabularyParts vocabulary_parts(const std::string& data) {
    (void)data;
    throw UsageError("ipq.vocabulary: this task has no vocabulary that a file could carry");
  }
  /// Whether packed files carry it where nothing is said (ipq.vocabulary).
  virtual bool packs_vocabulary() const { return false; }

  /// evaluate() with another module of the same kind: one that was read from a file.
  virtual Evaluation evaluate_module(Module& module, const Kernels& kernels, Communicator& comm, DType dtype) = 0;
  Evaluation evaluate(const Kernels& kernels, Communicator& comm, DType dtype) override {
    return evaluate_module(module(), kernels, comm, dtype);
  }

  /// Scores the module on data that a user names, any time; collective. Throws qn::Error when the data are not for this
  /// module.
  virtual EvalReport score_data(const EvalConfig& config, const Kernels& kernels, Communicator& comm, DType dtype) = 0;

  /// What the module says of lines of text. `data` is a prepared folder of the task, whose dictionary and tokenizer
  /// turn text into tokens; where it is empty they are those that the module's file carries, or of the folder that a
  /// checkpoint was trained on. Messages count lines from `lines_before` on. Throws qn::Error when it is not for this
  /// module, and UsageError where a task says nothing of lines.
  virtual std::vector<Prediction> predict(const std::string& data, std::span<const std::string> lines,
                                          const Kernels& kernels, DType dtype, int64_t lines_before = 0) {
    (void)data, (void)lines, (void)kernels, (void)dtype, (void)lines_before;
    throw UsageError(
        "this model does not classify sentences: `predict --text` is for models of task sentence_prediction");
  }

  /// What the module says of pictures: JPEG and PNG files. Throws qn::Error naming one that cannot be read, and
  /// UsageError where a task says nothing of pictures.
  virtual std::vector<Prediction> predict_images(std::span<const std::string> paths, const Kernels& kernels,
                                                 DType dtype) {
    (void)paths, (void)kernels, (void)dtype;
    throw UsageError(
        "this model does not classify images: `predict IMAGE...` is for models of task "
        "image_classification; lines of text come with --text");
  }

  /// A vector of length 1 for every line of text. `data` and `lines_before` as in predict().
  virtual std::vector<std::vector<float>> embed(const std::string& data, std::span<const std::string> lines,
                                                const Kernels& kernels, DType dtype, int64_t lines_before = 0) {
    (void)data, (void)lines, (void)kernels, (void)dtype, (void)lines_before;
    throw UsageError("this model makes no vectors of sentences: `embed` is for models of task sentence_embedding");
  }

  /// What the module writes for lines of text: their best translations, best first, or texts that go on from them.
  /// `data` as in predict(). Throws qn::Error when it is not for this module, and UsageError where a task writes no
  /// text, or has no use for an option that was given.
  virtual std::vector<std::vector<Generated>> generate(const std::string& data, std::span<const std::string> lines,
                                                       const GenerateConfig& config, const Kernels& kernels,
                                                       DType dtype) {
    (void)data, (void)lines, (void)config, (void)kernels, (void)dtype;
    throw UsageError(kWritesNothing);
  }
  /// The same of a split of the folder.
  virtual TranslationReport generate_split(const std::string& data, const std::string& split,
                                           const GenerateConfig& config, const Kernels& kernels, DType dtype) {
    (void)data, (void)split, (void)config, (void)kernels, (void)dtype;
    throw UsageError(kWritesNothing);
  }

 protected:
  /// For tasks whose evaluation knows what is right.
  static void check_no_teacher(const EvalConfig& config) {
    QN_CHECK_USAGE(config.teacher.empty(),
                   "--teacher is for models of the tasks sentence_embedding and image_classification");
  }

 private:
  static constexpr const char* kWritesNothing =
      "this model writes no text: `generate` is for models of the tasks translation and language_modeling";
};

}  // namespace qn
