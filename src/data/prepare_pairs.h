// From texts and their translations to the folder that ParallelText reads: what fairseq-preprocess makes of two
// languages (docs/formats.md, section 3).
#pragma once

#include <filesystem>
#include <string>

#include "data/preprocess.h"

namespace qn {

struct PreparePairsOptions {
  /// train, valid and test are prefixes: PREFIX.SOURCE and PREFIX.TARGET are the texts, line by line translations of
  /// each other. srcdict is the source's dictionary, or that of both languages with `joined`.
  PrepareOptions text;
  std::string source, target;         ///< languages
  bool joined = false;                ///< one dictionary for both
  std::filesystem::path target_dict;  ///< like srcdict, for the target

  /// Sets the languages of "de-en". Throws qn::UsageError for anything else.
  void set_languages(const std::string& pair);
};

/// Everything is checked before anything is written. Throws qn::Error naming file and line. `types` of the summary are
/// those of the source's dictionary.
PrepareSummary prepare_pairs(const PreparePairsOptions& options, int64_t& target_types);

}  // namespace qn
