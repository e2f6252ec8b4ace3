// RoBERTa rebuilt from golden files, whose batches are padded: here only their real tokens are computed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "golden_model.h"
#include "models/sentence_encoder.h"

namespace qn::test {

/// What the encoder of group `group` is built from.
ModelConfig golden_roberta_config(const Hdf5File& file, const std::string& group);

/// The model of group `group`, with the heads that it has and its stored parameters.
std::unique_ptr<SentenceEncoder> load_golden_roberta(const Hdf5File& file, const std::string& group, DType dtype);

/// A stored [B, T] batch without its padding, and a tape to send it through a model on.
struct RobertaPass {
  Arena arena;
  std::unique_ptr<Tape> tape;
  std::vector<int32_t> tokens, begins, lengths;
  SentenceBatch batch;
  std::vector<bool> real;                     ///< [B * T]: is no padding
  std::vector<int32_t> masked_rows, targets;  ///< where the file has "targets" [B, T], the real ones

  /// The rows of a stored [B, T, width] that are real.
  std::vector<double> kept(const std::vector<double>& values) const;
};
/// `tokens` and `targets` are the names of datasets; that of the targets may be empty.
std::unique_ptr<RobertaPass> make_roberta_pass(const Hdf5File& file, const std::string& tokens,
                                               const std::string& targets, DType dtype, const PassOptions& options);

/// The summed loss of the masked language model, and its gradients where the tape records.
double run_masked_lm(SentenceEncoder& model, RobertaPass& pass);
/// The same of a classification.
double run_classification(SentenceEncoder& model, RobertaPass& pass, const std::vector<int32_t>& labels);
/// The same of a regression.
double run_regression(SentenceEncoder& model, RobertaPass& pass, const std::vector<float>& targets);

}  // namespace qn::test
