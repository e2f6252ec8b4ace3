// From tables of labelled sentences to the folder that SentencePairs reads (docs/formats.md, section 3).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "data/preprocess.h"
#include "data/sentence_table.h"

namespace qn {

struct PrepareTableOptions {
  PrepareOptions text;  ///< train, valid and test are tables; limits and srcdict are for their sentences
  TableColumns columns;
  bool regression = false;           ///< labels are numbers
  std::filesystem::path label_dict;  ///< use this dict.txt of labels instead of making one
};

struct PrepareTableSummary {
  PrepareSummary text;  ///< its splits: one per sentence of every split
  struct Split {
    std::string name, columns;
    int64_t samples = 0;
    bool labelled = false;
  };
  std::vector<Split> splits;
  std::vector<std::pair<std::string, int64_t>> labels;  ///< classes in the order of their numbers, with counts
};

/// Writes input0/, input1/ (for pairs) and label/. Everything is checked before anything is written. Throws qn::Error
/// naming file, line and what to do.
PrepareTableSummary prepare_table(const PrepareTableOptions& options);

}  // namespace qn
