// The data of a run, opened once: dictionary, training blocks and their order, validation batches.
#pragma once

#include <memory>
#include <optional>

#include "data/dictionary.h"
#include "data/epoch_sampler.h"
#include "data/lm_dataset.h"
#include "tasks/run_config.h"

namespace qn {

class Corpus {
 public:
  /// Opens config.path; `max_positions` limits block lengths. Throws qn::Error with what to do when something is
  /// missing.
  Corpus(const DataConfig& config, uint64_t seed);
  /// Cuts and batches train and validation splits for a model.
  void prepare_training(int64_t max_positions);

  const Dictionary& dictionary() const { return dictionary_; }
  const LmDataset& train() const { return *train_; }
  EpochSampler& sampler() { return *sampler_; }
  const EpochSampler& sampler() const { return *sampler_; }
  /// Number `i` of `count` training micro-batches that lie evenly among all of them, which are sorted by length.
  Batch training_example(int64_t i, int64_t count) const;
  /// Of the tokens and sentences of training and validation; see TokenStream::verify().
  uint64_t train_checksum() const { return train_checksum_; }
  uint64_t valid_checksum() const { return valid_checksum_; }
  const LmDataset& valid() const { return *valid_; }
  const BatchList& valid_batches() const { return valid_batches_; }

 private:
  std::unique_ptr<LmDataset> open(const std::string& split, uint64_t& checksum) const;

  DataConfig config_;
  uint64_t seed_;
  Dictionary dictionary_;
  std::unique_ptr<LmDataset> train_, valid_;
  std::optional<EpochSampler> sampler_;
  BatchList valid_batches_;
  uint64_t train_checksum_ = 0, valid_checksum_ = 0;
};

}  // namespace qn
