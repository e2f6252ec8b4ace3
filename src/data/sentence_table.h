// Tables of sentences with labels, as GLUE's tasks come: a sample per line, columns separated by tabulators, no
// quoting.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/prepared_folder.h"

namespace qn {

/// Names from the header or numbers from 1; what is empty is found by the names that GLUE's tables use, or, in tables
/// without a header, by the number of columns: sentence; sentence, label; or sentence, sentence, label.
struct TableColumns {
  std::string input0, input1, label;

  /// "input0=sentence1,label=4". Throws qn::UsageError for anything else.
  static TableColumns parse(const std::string& text);
};

/// A label that is a number, of all of `word`; nothing for what is none, or not finite.
std::optional<float> score_of(std::string_view word);

/// The columns that count, a line per sample.
struct SentenceTable {
  std::string input0, input1, labels;
  int64_t samples = 0;
  bool pairs = false, labelled = false;
  std::string columns;  ///< which they are, for people
};

/// Reads the table of a split. Throws qn::Error naming file, line and column: rows of another number of columns, labels
/// that are empty, hold spaces or are called like special symbols, columns that are not there or there twice, no
/// sentences to be found. `may_lack_labels`: a column of labels that `columns` names need not be there.
SentenceTable read_sentence_table(const SplitInput& split, const TableColumns& columns, bool may_lack_labels);

}  // namespace qn
