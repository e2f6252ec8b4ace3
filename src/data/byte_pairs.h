// Byte-level byte-pair encoding as of GPT-2 (data/byte_level.h): the bytes of a word are the first tokens, and the pair
// of neighbours that comes first in the list of merges becomes one token, until no pair is in the list.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "data/byte_pair_model.h"
#include "data/tokenizer.h"
#include "data/word_pattern.h"

namespace qn {

/// As a tokenizer its words are, like fairseq's, the decimal numbers that GPT-2's encoder.json gives the tokens. Where
/// a vocabulary numbers them as fairseq's dictionary does (Hugging Face's RoBERTa: <s>, <pad>, </s> and <unk> come
/// first), GPT-2's number follows from the place in the list of merges, so both lead to the same dictionary.
class BytePairs : public Tokenizer {
 public:
  /// `files` are what the model was read from. Throws qn::Error naming file and line or token when vocabulary and
  /// merges are damaged or do not belong together: every token has to be a byte, special, or come from a merge.
  BytePairs(BytePairModel model, std::vector<TokenizerFile> files);
  /// Of a vocabulary's JSON and a list of merges.
  BytePairs(const std::filesystem::path& vocabulary, const std::filesystem::path& merges);

  class Encoder : public Splitter {
   public:
    explicit Encoder(const BytePairs& pairs) : pairs_(pairs), matcher_(pairs.pattern_) {}
    /// Appends the ids of `text`. Throws qn::Error when it is no UTF-8.
    void encode(std::string_view text, std::vector<int32_t>& ids);
    void split(std::string_view text, std::vector<std::string_view>& words) override;

   private:
    struct Range {
      uint32_t begin = 0, size = 0;
    };
    struct Hash {
      using is_transparent = void;
      size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
    };
    void encode_word(std::string_view word, std::vector<int32_t>& ids);

    const BytePairs& pairs_;
    WordPattern::Matcher matcher_;
    std::string with_blank_;
    std::unordered_map<std::string, Range, Hash, std::equal_to<>> known_;  // into known_ids_
    std::vector<int32_t> known_ids_, ids_;
  };

  /// Ids are below this.
  int32_t size() const { return static_cast<int32_t>(texts_.size()); }
  /// Of a token as the vocabulary spells it.
  std::optional<int32_t> find(const std::string& token) const;
  int32_t byte_token(uint8_t byte) const { return byte_ids_[byte]; }
  /// The bytes of tokens. Ids must be in range; a token alone may be a part of a character.
  std::string decode(std::span<const int32_t> ids) const;
  /// The dictionary's word for a token. Specials of fairseq's numbering are spelled as they are.
  std::string_view word(int32_t id) const { return words_[static_cast<size_t>(id)]; }

  std::unique_ptr<Splitter> splitter() const override { return std::make_unique<Encoder>(*this); }
  std::string join(std::span<const std::string_view> words) const override;
  bool contains(std::string_view word) const override { return ids_of_words_.contains(word); }
  bool begins_word(std::string_view word) const override;
  std::vector<std::string_view> words() const override;
  const std::vector<TokenizerFile>& files() const override { return files_; }

 private:
  struct Merge {
    int32_t rank = 0, id = 0;
  };
  BytePairs(const TokenizerFile& vocabulary, const TokenizerFile& merges);
  void take_vocabulary(BytePairModel& model);
  void take_merges(const BytePairModel& model);
  void check_merges_are_complete(const BytePairModel& model) const;
  void name_words();
  /// Merges the tokens of one word from `begin` on.
  void merge(std::vector<int32_t>& ids, size_t begin) const;
  const Merge* merge_of(int32_t left, int32_t right) const;

  std::vector<TokenizerFile> files_;
  bool prefix_space_;
  const WordPattern& pattern_;
  std::unordered_map<std::string, int32_t> ids_;  // by the vocabulary's spelling
  std::vector<std::string> texts_, words_;        // bytes and dictionary's words, by id
  std::unordered_map<std::string_view, int32_t> ids_of_words_;
  std::array<int32_t, 256> byte_ids_{};
  std::unordered_map<uint64_t, Merge> merges_;  // by pair of ids
  std::vector<int32_t> merged_;                 // ids by rank
};

}  // namespace qn
