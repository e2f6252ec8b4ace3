// What turns text into the ids of a model and back, and the texts that a model's file carries it in.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "data/dictionary.h"
#include "data/tokenizer.h"

namespace qn {

struct Vocabulary {
  std::unique_ptr<Tokenizer> tokenizer;  ///< null: words are what stands between spaces
  Dictionary dictionary;                 ///< of a translation: of the language that is written
  std::optional<Dictionary> source;      ///< of a translation whose languages have a dictionary each

  const Dictionary& source_dictionary() const { return source ? *source : dictionary; }
  /// The text of ids, without end marks. `marker` (may be empty) is what pieces of words end in that the next one
  /// belongs to; of a tokenizer's words there is none.
  std::string text_of(std::span<const int32_t> ids, const std::string& marker) const;
};

/// A vocabulary as texts by name (docs/formats.md, section 1). Counts of words are left out: nothing that is asked of a
/// trained model needs them.
using VocabularyParts = std::map<std::string, std::string>;
VocabularyParts parts_of(const Vocabulary& vocabulary);
/// The vocabulary of such texts, which may be from anywhere. Throws qn::Error beginning with `where`.
Vocabulary vocabulary_of(const VocabularyParts& parts, const std::string& where);
/// The text of this name. Throws qn::Error beginning with `where` when there is none.
const std::string& part_of(const VocabularyParts& parts, const char* name, const std::string& where);

/// Most bytes of all parts together.
inline constexpr size_t kMostVocabularyBytes = size_t{64} << 20;

}  // namespace qn
