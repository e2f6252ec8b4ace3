// The configuration of a run: what a trainer needs, and the model, task and data.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "data/token_blocks.h"
#include "tasks/image_data_config.h"
#include "tasks/task_config.h"
#include "train/trainer_config.h"

namespace qn {

/// The section `data`.
struct DataConfig {
  std::string path;
  BreakMode break_mode = BreakMode::none;
  int64_t tokens_per_sample = 512;
  int64_t max_tokens = 4096;
  int64_t max_sentences = 0;
  int64_t required_multiple = 8;
  std::string valid = "valid";
  bool skip_invalid_size_valid = false;
  void visit(ConfigVisitor& v);
  void validate(const ConfigChecker& c) const;
};

/// What `eval` is asked to score, and how. What visit() lists becomes an option each: `break_mode` is --break-mode.
struct EvalConfig {
  std::string data;  ///< where the data are
  std::string split = "test";
  int64_t context_window = 0;
  std::optional<int64_t> tokens_per_sample;
  BreakMode break_mode = BreakMode::none;
  int64_t max_tokens = 8192;
  std::string bpe_marker;
  std::string teacher;
  void visit(ConfigVisitor& v);
};

/// Documentation of every key of a run, those of all types of models and tasks included.
std::string describe_run_config();

struct RunConfig : TrainerConfig {
  ModelConfig model;
  TaskConfig task;
  DataConfig data;         ///< of text
  ImageDataConfig images;  ///< the same section for image networks
  const std::string& data_path() const { return is_image_model(model.type) ? images.path : data.path; }
  const std::string& valid_split() const { return is_image_model(model.type) ? images.valid : data.valid; }
  void visit(ConfigVisitor& v);
  void validate(const ConfigChecker& c) const;
};

}  // namespace qn
