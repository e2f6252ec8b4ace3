// Language models: modules that give a loss per position.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "models/model_config.h"
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

/// Builds the language model named by config.type; parameters have shapes but no memory yet. `default_positions` is
/// used when the config does not say how many positions there are (blocks of the data).
std::unique_ptr<LanguageModel> make_language_model(const ModelConfig& config, int64_t vocabulary,
                                                   int64_t default_positions);

}  // namespace qn
