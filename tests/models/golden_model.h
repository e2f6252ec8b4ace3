// Models rebuilt from golden files: attributes to config, stored parameters to values, gradients back for comparison.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/hdf5_file.h"
#include "models/transformer_lm.h"
#include "support/tolerance.h"

namespace qn::test {

/// What the model of group `group` is built from.
ModelConfig golden_config(const Hdf5File& file, const std::string& group);

/// The model of group `group` ("model", "variant_untied/model", ...) with its stored parameters and position table.
std::unique_ptr<TransformerLm> load_golden_model(const Hdf5File& file, const std::string& group, DType dtype);

/// Gives a module memory of this type and the parameters that group `group` stores, whose names must be the module's.
void load_golden_parameters(const Hdf5File& file, const std::string& group, DType dtype, Module& module);

/// Where a file keeps a model and one of the batches that were run through it.
struct GoldenCase {
  std::string model, batch;
};
/// Every batch with features and gradients: members of the groups, the root included, that have a member "model".
std::vector<GoldenCase> golden_cases(const Hdf5File& file);

/// How far the model of group `group` may be off with activations in bf16.
Bfloat16Model bf16_tolerance(const Hdf5File& file, const std::string& group);

/// A stored [B, T] id tensor as int32.
std::vector<int32_t> read_ids(const Hdf5File& file, const std::string& dataset);

/// Any floating tensor as doubles.
std::vector<double> to_doubles(const Tensor& tensor);

/// Runs forward (and backward when recording) on stored tokens and targets.
struct GoldenPass {
  Arena arena;
  std::unique_ptr<Tape> tape;
  TokenBatch batch;
  std::vector<int32_t> tokens, targets;
  std::vector<double> losses;  ///< per position
  double loss = 0.0;
};
std::unique_ptr<GoldenPass> make_pass(const Hdf5File& file, const std::string& group, DType dtype, bool recording,
                                      bool training = false);
void run_loss(TransformerLm& model, GoldenPass& pass);

/// Expects every gradient in `group` ("caseA/grads") to match; parameters absent there must have had no contribution.
void expect_gradients(const Hdf5File& file, const std::string& group, Module& model, double tolerance);
/// The same after a pass with activations in bf16.
void expect_bf16_gradients(const Hdf5File& file, const std::string& group, Module& model,
                           const Bfloat16Model& tolerance);

}  // namespace qn::test
