// Encoder-decoder models rebuilt from golden files, whose batches are padded: here only their real tokens are computed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "golden_model.h"
#include "models/seq2seq.h"

namespace qn::test {

/// What the model of group `group` is built from.
ModelConfig golden_seq2seq_config(const Hdf5File& file, const std::string& group);

/// The model of group `group` with its stored parameters and position table.
std::unique_ptr<Seq2Seq> load_golden_seq2seq(const Hdf5File& file, const std::string& group, DType dtype);

/// The real tokens of a stored [B, T].
struct RealTokens {
  RealTokens() = default;
  /// Those of the dataset `tokens` that are no padding.
  RealTokens(const Hdf5File& file, const std::string& tokens);
  std::vector<int32_t> tokens, begins, lengths;
  std::vector<bool> real;  ///< [B * T]
  Sequences sequences() const;
  /// The rows of a stored [B, T, width] that are real.
  std::vector<double> kept(const std::vector<double>& values) const;
};

/// A stored batch, and a tape to send it through a model on.
struct PairPass {
  Arena arena;
  std::unique_ptr<Tape> tape;
  RealTokens source, previous, target;
  PairBatch batch;
};
std::unique_ptr<PairPass> make_pair_pass(const Hdf5File& file, const std::string& group, DType dtype,
                                         const PassOptions& options);

/// The summed loss, and its gradients where the tape records.
double run_pairs(Seq2Seq& model, PairPass& pass, double smoothing);

}  // namespace qn::test
