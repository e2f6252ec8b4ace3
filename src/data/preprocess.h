// From text files to a dictionary and binarized token streams: what fairseq-preprocess --only-source does (fairseq
// semantics 6.1), with the same files as result.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "data/byte_pair_training.h"
#include "data/prepared_folder.h"

namespace qn {

struct PrepareOptions {
  std::filesystem::path train;                           ///< may be empty when srcdict is given
  std::vector<std::filesystem::path> valid, test;        ///< become valid, valid1, ... and test, test1, ...
  std::filesystem::path destdir;                         ///< created if needed
  DictionaryLimits limits;                               ///< for a dictionary made from `train`
  std::filesystem::path srcdict;                         ///< use this dict.txt instead of making one
  std::shared_ptr<const Tokenizer> tokenizer = nullptr;  ///< what makes words of the text; none: the spaces in it
  BytePairTraining training = {};                        ///< of a size: makes a tokenizer of the training text instead
};

/// The texts that are named; each is opened once, and pipes are read. Throws qn::Error where there is none, or nothing
/// to make a dictionary of.
std::vector<SplitInput> list_splits(const PrepareOptions& options);

struct PrepareSummary {
  int64_t types = 0;  ///< size of the dictionary, specials and padding words included
  uint64_t dictionary_hash = 0;
  std::vector<SplitSummary> splits;
  std::optional<TrainedBytePairs> trained = {};
};

/// What makes words of the texts: the tokenizer of the options, or one that is trained on `texts`.
std::shared_ptr<const Tokenizer> tokenizer_for(const PrepareOptions& options, std::span<const std::string_view> texts,
                                               PrepareSummary& summary);
/// Sorts and cuts a dictionary that was counted. All words of a tokenizer that was trained are in it, also those that
/// the training text happens not to have: other texts will.
void finish_dictionary(Dictionary& dictionary, const PrepareOptions& options, const Tokenizer* tokenizer);

/// Writes dict.txt and, per text, SPLIT.bin, SPLIT.idx and SPLIT.sum to destdir, and a copy of the tokenizer's files.
/// All texts are checked first: nothing in destdir changes when one of them is bad, or when destdir holds other splits
/// that were made with another dictionary. Throws qn::Error for missing or empty files and invalid UTF-8, naming file
/// and line.
PrepareSummary prepare(const PrepareOptions& options);

}  // namespace qn
