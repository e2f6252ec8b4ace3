#include "data/vocabulary.h"

#include <unordered_map>
#include <vector>

#include "core/error.h"
#include "data/stored_tokenizer.h"
#include "data/text_scanner.h"

namespace qn {
namespace {

/// Words of a dictionary in their order, a line each; beside a tokenizer most are words of its own and stored as their
/// places there, and the lines have what is no such word (kNoPlace).
struct DictionaryParts {
  const char *words, *places;
};
constexpr DictionaryParts kDictionary{"words", "word_places"}, kSource{"source_words", "source_word_places"};
constexpr int32_t kNoPlace = kMostNumber;

void store(const Dictionary& dictionary, const Tokenizer* tokenizer, const DictionaryParts& names,
           VocabularyParts& parts) {
  std::unordered_map<std::string_view, int32_t> known;
  if (tokenizer != nullptr)
    for (const std::string_view word : tokenizer->words()) known.emplace(word, static_cast<int32_t>(known.size()));
  std::string words;
  std::vector<int32_t> places;
  for (int32_t id = kSpecialCount; id < dictionary.size(); ++id) {
    const std::string_view word = dictionary.symbol(id);
    const auto found = known.find(word);
    places.push_back(found == known.end() ? kNoPlace : found->second);
    if (found == known.end()) words.append(word).push_back('\n');
  }
  parts[names.words] = std::move(words);
  if (tokenizer != nullptr) parts[names.places] = number_planes(places);
}

std::vector<std::string_view> lines_of(std::string_view text, const std::string& where) {
  QN_CHECK(text.empty() || text.ends_with('\n'), "{} ends within a line: the file is damaged", where);
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    lines.push_back(text.substr(0, end));
    text.remove_prefix(end + 1);
  }
  return lines;
}

struct Nothing {
  void token(std::string_view) const {}
  void end_line() const {}
};

Dictionary stored_dictionary(const VocabularyParts& parts, const Tokenizer* tokenizer, const DictionaryParts& names,
                             const std::string& where) {
  const std::string words_name = fmt::format("{}: {}", where, names.words);
  const std::string& text = part_of(parts, names.words, where);
  scan_text(text, words_name, Nothing{});  // finds what is no UTF-8
  std::vector<std::string_view> words = lines_of(text, words_name);
  if (tokenizer == nullptr) return Dictionary::of_tokens(words);
  const std::string places_name = fmt::format("{}: {}", where, names.places);
  const std::vector<std::string_view> own = tokenizer->words();
  std::vector<std::string_view> all;
  size_t next = 0;
  for (const int32_t place : numbers_of_planes(part_of(parts, names.places, where), places_name)) {
    QN_CHECK(place == kNoPlace ? next < words.size() : place < std::ssize(own),
             "{}: word {} is no word of the tokenizer: the file is damaged", places_name, all.size());
    all.push_back(place == kNoPlace ? words[next++] : own[static_cast<size_t>(place)]);
  }
  QN_CHECK(next == words.size(), "{} has {} words that no place asks for: the file is damaged", words_name,
           words.size() - next);
  return Dictionary::of_tokens(all);
}

}  // namespace

std::string Vocabulary::text_of(std::span<const int32_t> ids, const std::string& marker) const {
  std::vector<std::string_view> words;
  for (const int32_t id : ids)
    if (id != kEosId) words.push_back(dictionary.symbol(id));
  if (tokenizer != nullptr) return tokenizer->join(words);
  std::string text;
  for (size_t i = 0; i < words.size(); ++i) {
    const bool goes_on = !marker.empty() && words[i].ends_with(marker);
    text += goes_on ? words[i].substr(0, words[i].size() - marker.size()) : words[i];
    if (!goes_on && i + 1 < words.size()) text += ' ';
  }
  return text;
}

VocabularyParts parts_of(const Vocabulary& vocabulary) {
  VocabularyParts parts;
  const Tokenizer* tokenizer = vocabulary.tokenizer.get();
  if (tokenizer != nullptr) store_tokenizer(*tokenizer, parts);
  store(vocabulary.dictionary, tokenizer, kDictionary, parts);
  if (vocabulary.source) store(*vocabulary.source, tokenizer, kSource, parts);
  size_t bytes = 0;
  for (const auto& [name, text] : parts) bytes += text.size();
  QN_CHECK(
      bytes < kMostVocabularyBytes / 2,
      "the vocabulary is too large for a model's file ({} bytes, {} is the most): ipq.vocabulary: false leaves it out",
      bytes, kMostVocabularyBytes / 2);
  return parts;
}

const std::string& part_of(const VocabularyParts& parts, const char* name, const std::string& where) {
  const auto found = parts.find(name);
  QN_CHECK(found != parts.end(), "{} has no part '{}': the file is damaged", where, name);
  return found->second;
}

Vocabulary vocabulary_of(const VocabularyParts& parts, const std::string& where) {
  Vocabulary vocabulary;
  vocabulary.tokenizer = stored_tokenizer(parts, where);
  const Tokenizer* tokenizer = vocabulary.tokenizer.get();
  vocabulary.dictionary = stored_dictionary(parts, tokenizer, kDictionary, where);
  if (parts.contains(kSource.words)) vocabulary.source = stored_dictionary(parts, tokenizer, kSource, where);
  return vocabulary;
}

}  // namespace qn
