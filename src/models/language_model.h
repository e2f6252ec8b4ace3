// Language models: modules that give a loss per position.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/config.h"
#include "nn/module.h"

namespace qn {

/// Token ids [rows, cols], right-padded with 1. Targets may be empty where only features are wanted.
struct TokenBatch {
  int64_t rows = 0, cols = 0;
  std::span<const int32_t> source, target;
};

class LanguageModel : public Module {
 public:
  /// Natural-log loss of every position (f64 [rows * cols], 0 where the target is padding), summed in f64; registers
  /// the backward of their sum on the tape.
  virtual Tensor losses(Tape& tape, const TokenBatch& batch) = 0;
  virtual int64_t max_positions() const = 0;
};

/// Limits of what a configuration may ask for, far beyond what anyone trains: a slip of the keyboard or a damaged file
/// is told by its key and not by what the machine does when it runs out of memory.
inline constexpr int64_t kMostLayers = 10'000, kMostWidth = 1 << 20, kMostPositions = 1 << 24;

/// Frequency bands of adaptive input and output.
struct AdaptiveConfig {
  std::vector<int64_t> cutoffs;
  double factor = 4.0;
  double dropout = 0.0;
  bool input = false;
  bool softmax = false;
  bool tie_weights = false;
  bool tie_projections = false;
  void visit(ConfigVisitor& v);
  void validate(const ConfigChecker& c) const;
};

enum class ModelType { transformer_lm };
template <>
struct EnumNames<ModelType> {
  static constexpr EnumName<ModelType> kAll[] = {{ModelType::transformer_lm, "transformer_lm"}};
};

/// The section `model` of a configuration. Names follow fairseq's transformer_lm where it has one (reference 5.2).
struct ModelConfig {
  ModelType type = ModelType::transformer_lm;
  int64_t layers = 6, embed_dim = 512, ffn_dim = 2048, heads = 8;
  int64_t input_dim = 0, output_dim = 0;
  int64_t max_positions = 0;
  double dropout = 0.1, attention_dropout = 0.0, activation_dropout = 0.0;
  Activation activation = Activation::relu;
  bool prenorm = false, final_norm = false, learned_positions = false, scale_embedding = true;
  bool share_input_output = false, noise_projection = false;
  double layerdrop = 0.0;
  int64_t share_layers = 1;
  AdaptiveConfig adaptive;
  void visit(ConfigVisitor& v);
  void validate(const ConfigChecker& c) const;
};

/// Builds the model named by config.type; parameters have shapes but no memory yet. `default_positions` is used when
/// the config does not say how many positions there are (blocks of the data).
std::unique_ptr<LanguageModel> make_language_model(const ModelConfig& config, int64_t vocabulary,
                                                   int64_t default_positions);

}  // namespace qn
