// Byte-level byte-pair encoding as of GPT-2 (Radford et al. 2019; fairseq semantics 6.7): text is cut into words by a
// regular expression, the bytes of a word are the first tokens, and the pair of neighbours that comes first in the list
// of merges becomes one token, until no pair is in the list.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "data/tokenizer.h"

namespace qn {

/// As a tokenizer its words are, like fairseq's, the decimal numbers that GPT-2's encoder.json gives the tokens. Where
/// a vocabulary numbers them as fairseq's dictionary does (Hugging Face's RoBERTa: <s>, <pad>, </s> and <unk> come
/// first), GPT-2's number follows from the place in the list of merges, so both lead to the same dictionary.
class BytePairs : public Tokenizer {
 public:
  /// `vocabulary`: JSON of tokens and ids, bytes written as GPT-2's printable characters; `merges`: a pair per line.
  /// Throws qn::Error naming file and line or token when they are damaged or do not belong together.
  BytePairs(const std::filesystem::path& vocabulary, const std::filesystem::path& merges);
  ~BytePairs() override;

  class Encoder : public Splitter {
   public:
    explicit Encoder(const BytePairs& pairs);
    ~Encoder() override;
    /// Appends the ids of `text`. Throws qn::Error when it is no UTF-8.
    void encode(std::string_view text, std::vector<int32_t>& ids);
    void split(std::string_view text, std::vector<std::string_view>& words) override;

   private:
    struct Matcher;
    struct Range {
      uint32_t begin = 0, size = 0;
    };
    struct Hash {
      using is_transparent = void;
      size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
    };
    void encode_word(std::string_view word, std::vector<int32_t>& ids);

    const BytePairs& pairs_;
    std::unique_ptr<Matcher> matcher_;
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
  std::vector<std::filesystem::path> files() const override { return files_; }

 private:
  struct Merge {
    int32_t rank = 0, id = 0;
  };
  struct Pattern;
  void read_vocabulary(const std::filesystem::path& path);
  void read_merges(const std::filesystem::path& path);
  void add_merge(std::string_view line, const std::string& where);
  void name_words();
  /// Merges the tokens of one word from `begin` on.
  void merge(std::vector<int32_t>& ids, size_t begin) const;
  const Merge* merge_of(int32_t left, int32_t right) const;

  std::vector<std::filesystem::path> files_;
  std::unordered_map<std::string, int32_t> ids_;  // by the vocabulary's spelling
  std::vector<std::string> texts_, words_;        // bytes and dictionary's words, by id
  std::unordered_map<std::string_view, int32_t> ids_of_words_;
  std::array<int32_t, 256> byte_ids_{};
  std::unordered_map<uint64_t, Merge> merges_;  // by pair of ids
  std::vector<int32_t> merged_;                 // ids by rank
  std::unique_ptr<Pattern> pattern_;
};

}  // namespace qn
