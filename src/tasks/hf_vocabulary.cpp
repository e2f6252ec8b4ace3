#include "tasks/hf_vocabulary.h"

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>

#include "core/error.h"
#include "data/byte_pairs.h"

namespace qn {
namespace {

std::vector<float> with_rows(const std::vector<float>& rows, size_t count,
                             const std::function<std::pair<size_t, size_t>(size_t)>& from_to) {
  QN_ASSERT(rows.size() % count == 0, "{} values in {} rows", rows.size(), count);
  const size_t width = rows.size() / count;
  std::vector<float> result(rows.size());
  for (size_t i = 0; i < count; ++i) {
    const auto [from, to] = from_to(i);
    std::copy_n(rows.begin() + static_cast<std::ptrdiff_t>(from * width), width,
                result.begin() + static_cast<std::ptrdiff_t>(to * width));
  }
  return result;
}

HfVocabulary same_ids(int64_t size) {
  HfVocabulary vocabulary;
  vocabulary.theirs.resize(static_cast<size_t>(size));
  std::iota(vocabulary.theirs.begin(), vocabulary.theirs.end(), 0);
  return vocabulary;
}

/// Of entries without names.
void add_numbers(Dictionary& dictionary, int64_t size) {
  while (dictionary.size() < size) dictionary.add(std::to_string(dictionary.size()), 0);
}

/// The byte pairs in a folder, if there are any.
std::unique_ptr<BytePairs> byte_pairs_of(const std::filesystem::path& folder, int64_t size) {
  std::unique_ptr<Tokenizer> tokenizer = find_tokenizer(folder);
  if (!tokenizer) return nullptr;
  std::unique_ptr<BytePairs> pairs(dynamic_cast<BytePairs*>(tokenizer.get()));
  QN_CHECK(pairs != nullptr, "{} has word pieces, but this model has byte pairs: the files do not belong together",
           folder.string());
  tokenizer.release();  // pairs has it now
  QN_CHECK(pairs->size() <= size, "{} has {} tokens, but the model only {}: the files do not belong together",
           pairs->files().front().path.string(), pairs->size(), size);
  return pairs;
}

/// Their tokens in the places of <s>, <pad>, </s> and <unk>.
std::array<int32_t, kSpecialCount> special_tokens(const BytePairs& pairs) {
  const auto byte = [&](uint8_t value) { return pairs.byte_token(value); };
  return {byte(0xc0), byte(0xc1), pairs.find("<|endoftext|>").value_or(byte(0xf6)), byte(0xf5)};
}

}  // namespace

std::vector<float> HfVocabulary::to_ours(const std::vector<float>& rows) const {
  return with_rows(rows, theirs.size(), [&](size_t i) { return std::pair(static_cast<size_t>(theirs[i]), i); });
}

std::vector<float> HfVocabulary::to_theirs(const std::vector<float>& rows) const {
  return with_rows(rows, theirs.size(), [&](size_t i) { return std::pair(i, static_cast<size_t>(theirs[i])); });
}

HfVocabulary gpt2_vocabulary(const std::filesystem::path& folder, int64_t size) {
  QN_CHECK(size > kSpecialCount, "a vocabulary of {} tokens is too small", size);
  const std::unique_ptr<BytePairs> pairs = byte_pairs_of(folder, size);
  if (!pairs) {
    HfVocabulary vocabulary = same_ids(size);
    add_numbers(vocabulary.dictionary, size);
    return vocabulary;
  }
  HfVocabulary vocabulary;
  vocabulary.known = true;
  const std::array<int32_t, kSpecialCount> specials = special_tokens(*pairs);
  vocabulary.theirs.assign(specials.begin(), specials.end());
  int padding = 0;
  for (int32_t id = 0; id < size; ++id) {
    if (std::find(specials.begin(), specials.end(), id) != specials.end()) continue;
    vocabulary.theirs.push_back(id);
    const bool named = id < pairs->size() && !pairs->word(id).empty();
    vocabulary.dictionary.add(named ? std::string(pairs->word(id)) : fmt::format("madeupword{:04d}", padding++), 0);
  }
  QN_CHECK(vocabulary.dictionary.size() == size, "{} gives two tokens the same name",
           pairs->files().front().path.string());
  return vocabulary;
}

HfVocabulary roberta_vocabulary(const std::filesystem::path& folder, int64_t size) {
  constexpr const char* kMask = "<mask>";
  QN_CHECK(size > kSpecialCount + 1, "a vocabulary of {} tokens is too small", size);
  HfVocabulary vocabulary = same_ids(size);
  const std::unique_ptr<BytePairs> pairs = byte_pairs_of(folder, size);
  if (!pairs) {
    add_numbers(vocabulary.dictionary, size - 1);
    return vocabulary;
  }
  const std::string file = pairs->files().front().path.string();
  QN_CHECK(
      pairs->find("<s>") == kBosId && pairs->find("<pad>") == kPadId && pairs->find("</s>") == kEosId &&
          pairs->find("<unk>") == kUnkId && pairs->find(kMask) == size - 1,
      "{} does not begin with <s>, <pad>, </s>, <unk> and end with {} as number {}: it is no vocabulary of RoBERTa",
      file, kMask, size - 1);
  vocabulary.known = true;
  for (int32_t id = kSpecialCount; id + 1 < size; ++id) {
    const std::string_view word = pairs->word(id);
    vocabulary.dictionary.add(word.empty() ? fmt::format("madeupword{:04d}", id) : std::string(word), 0);
  }
  QN_CHECK(vocabulary.dictionary.size() == size - 1, "{} gives two tokens the same name", file);
  return vocabulary;
}

}  // namespace qn
