// A whole run in miniature: a small synthetic text, prepared, and a configuration that trains on it in seconds.
#pragma once

#include <filesystem>

#include "support/temp_dir.h"
#include "tasks/run_config.h"
#include "train/trainer.h"

namespace qn::test {

/// Writes a text with some structure to `dir` and prepares it in `dir`/data (train, valid, test).
void prepare_tiny_corpus(const std::filesystem::path& dir);

/// Two layers, width 32, adaptive bands, dropout everywhere; 12 updates of 4 micro-batches. Checkpoints in
/// `dir`/`name`.
RunConfig tiny_config(const std::filesystem::path& dir, const std::string& name);

/// The same model, quantized in three stages of 4 updates from checkpoint `from`.
RunConfig tiny_ipq_config(const std::filesystem::path& dir, const std::string& name, const std::filesystem::path& from);

/// Asks to stop at the n-th question (counted from 1); never for 0.
std::function<bool()> stop_at(int n);

/// All parameter values, in store order.
std::vector<float> parameter_values(LanguageModel& model);
/// All codes, in weight order.
std::vector<uint16_t> all_codes(const LanguageModel& model);

}  // namespace qn::test
