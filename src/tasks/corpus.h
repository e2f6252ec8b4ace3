// The data of a run, opened once: dictionary, blocks and batches of training and validation.
#pragma once

#include <memory>
#include <string>

#include "data/batching.h"
#include "data/dictionary.h"
#include "data/lm_dataset.h"
#include "tasks/run_config.h"

namespace qn {

class Corpus {
 public:
  /// Opens config.path; `max_positions` limits block lengths. Throws qn::Error with what to do when something is
  /// missing.
  Corpus(const DataConfig& config, uint64_t seed);
  /// Cuts and batches train and validation splits for a model that puts `added` tokens before each block; returns the
  /// batches to train on.
  BatchList prepare_training(int64_t max_positions, int32_t added = 0);
  /// Of the training data, for the log.
  std::string describe(int64_t updates_per_epoch, int64_t micro_batches) const;

  const Dictionary& dictionary() const { return dictionary_; }
  const LmDataset& train() const { return *train_; }
  uint64_t seed() const { return seed_; }
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
  BatchList valid_batches_;
  uint64_t train_checksum_ = 0, valid_checksum_ = 0;
};

}  // namespace qn
