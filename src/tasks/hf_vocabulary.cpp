#include "tasks/hf_vocabulary.h"

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>

#include "core/error.h"
#include "data/byte_pairs.h"
#include "data/word_pieces.h"

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

/// The tokenizer, if there is any, as one of the model's kind.
template <class Kind>
const Kind* tokenizer_of(const Tokenizer* tokenizer, int64_t size) {
  if (tokenizer == nullptr) return nullptr;
  const std::filesystem::path& file = tokenizer->files().front().path;
  const auto* found = dynamic_cast<const Kind*>(tokenizer);
  constexpr bool kPairs = std::is_same_v<Kind, BytePairs>;
  QN_CHECK(found != nullptr, "{} has {}, but this model has {}: the files do not belong together",
           file.parent_path().string(), kPairs ? "word pieces" : "byte pairs", kPairs ? "byte pairs" : "word pieces");
  QN_CHECK(found->size() <= size, "{} has {} tokens, but the model only {}: the files do not belong together",
           file.string(), found->size(), size);
  return found;
}

/// A word for a token without one.
std::string filler(int64_t number) { return fmt::format("madeupword{:04d}", number); }

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

HfVocabulary gpt2_vocabulary(const Tokenizer* tokenizer, int64_t size) {
  QN_CHECK(size > kSpecialCount, "a vocabulary of {} tokens is too small", size);
  const auto pairs = tokenizer_of<BytePairs>(tokenizer, size);
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
    vocabulary.dictionary.add(named ? std::string(pairs->word(id)) : filler(padding++), 0);
  }
  QN_CHECK(vocabulary.dictionary.size() == size, "{} gives two tokens the same name",
           pairs->files().front().path.string());
  return vocabulary;
}

HfVocabulary roberta_vocabulary(const Tokenizer* tokenizer, int64_t size) {
  constexpr const char* kMask = "<mask>";
  QN_CHECK(size > kSpecialCount + 1, "a vocabulary of {} tokens is too small", size);
  HfVocabulary vocabulary = same_ids(size);
  const auto pairs = tokenizer_of<BytePairs>(tokenizer, size);
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
    vocabulary.dictionary.add(word.empty() ? filler(id) : std::string(word), 0);
  }
  QN_CHECK(vocabulary.dictionary.size() == size - 1, "{} gives two tokens the same name", file);
  return vocabulary;
}

namespace {

/// Ids of the pieces that text cannot make, in the places of <s>, <pad>, </s> and <unk>, and behind them [MASK].
std::array<int32_t, kSpecialCount + 1> special_pieces(const WordPieces& pieces) {
  std::array<int32_t, kSpecialCount + 1> ids{};
  constexpr std::array<std::string_view, kSpecialCount + 1> kNames{"[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"};
  for (size_t i = 0; i < kNames.size(); ++i) {
    ids[i] = pieces.find(kNames[i]);
    QN_CHECK(ids[i] >= 0, "{} has no line {}: it is no vocabulary of a BERT", pieces.files().front().path.string(),
             kNames[i]);
  }
  return ids;
}

}  // namespace

HfVocabulary bert_vocabulary(const Tokenizer* tokenizer, int64_t size) {
  QN_CHECK(size > kSpecialCount + 1, "a vocabulary of {} tokens is too small", size);
  HfVocabulary vocabulary = same_ids(size);
  const auto pieces = tokenizer_of<WordPieces>(tokenizer, size);
  if (!pieces) {
    add_numbers(vocabulary.dictionary, size - 1);
    return vocabulary;
  }
  vocabulary.known = true;
  const auto specials = special_pieces(*pieces);
  vocabulary.theirs.assign(specials.begin(), specials.end() - 1);
  for (int32_t id = 0; id < size; ++id) {
    if (std::find(specials.begin(), specials.end(), id) != specials.end()) continue;
    vocabulary.theirs.push_back(id);
    vocabulary.dictionary.add(id < pieces->size() ? std::string(pieces->token(id)) : filler(id), 0);
  }
  vocabulary.theirs.push_back(specials.back());
  QN_CHECK(vocabulary.dictionary.size() == size - 1, "{} has a piece that is spelled like {} here",
           pieces->files().front().path.string(), "<s>, <pad>, </s> or <unk>");
  return vocabulary;
}

}  // namespace qn
