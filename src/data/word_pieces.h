// WordPiece tokens as of BERT (Devlin et al. 2018): text is cleaned, split at white space and punctuation, and every
// word becomes the longest pieces that the vocabulary has, from the left; those behind the first begin with ##.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "data/tokenizer.h"

namespace qn {

struct WordPieceOptions {
  bool lower_case = true;
  bool strip_accents = true;  ///< all that Unicode calls a nonspacing mark, after canonical decomposition
  bool split_cjk = true;      ///< a CJK ideograph is a word by itself

  /// As tokenizer_config.json of Hugging Face says (do_lower_case, strip_accents, tokenize_chinese_chars); without its
  /// keys, lower case without accents. Throws qn::Error naming file and key.
  static WordPieceOptions read(const TokenizerFile& config);
  /// Such a file's text with these options.
  std::string text() const;
};

/// As a tokenizer its words are the pieces as vocab.txt has them, but for [UNK], which is the dictionary's <unk>.
class WordPieces : public Tokenizer {
 public:
  /// `pieces`: one per line; its id is the line's number from 0. `files` are what they were read from. Throws qn::Error
  /// naming file and line, which is `name` and a number behind it.
  WordPieces(std::string pieces, const std::string& name, const WordPieceOptions& options,
             std::vector<TokenizerFile> files);

  class Encoder : public Splitter {
   public:
    explicit Encoder(const WordPieces& pieces) : pieces_(pieces) {}
    /// Appends the ids of `text`. Throws qn::Error when it is no UTF-8.
    void encode(std::string_view text, std::vector<int32_t>& ids);
    void split(std::string_view text, std::vector<std::string_view>& words) override;

   private:
    struct Range {
      uint32_t begin = 0, size = 0;
    };
    void character(uint32_t c, std::vector<int32_t>& ids);
    void add(uint32_t c, std::vector<int32_t>& ids);
    void end_word(std::vector<int32_t>& ids);

    const WordPieces& pieces_;
    std::string word_;                              // what the word under way has so far
    int64_t characters_ = 0;                        // in it
    std::unordered_map<std::string, Range> known_;  // into known_ids_
    std::vector<int32_t> known_ids_, ids_;
  };

  int32_t size() const { return static_cast<int32_t>(tokens_.size()); }
  int32_t unknown() const { return unknown_; }
  const WordPieceOptions& options() const { return options_; }
  std::string_view token(int32_t id) const { return tokens_[static_cast<size_t>(id)]; }
  /// The id of a piece as vocab.txt spells it; -1: there is none.
  int32_t find(std::string_view token) const;

  std::unique_ptr<Splitter> splitter() const override { return std::make_unique<Encoder>(*this); }
  /// With a space between words, also before punctuation.
  std::string join(std::span<const std::string_view> words) const override;
  bool contains(std::string_view word) const override;
  bool begins_word(std::string_view word) const override { return !word.starts_with("##"); }
  std::vector<std::string_view> words() const override;
  const std::vector<TokenizerFile>& files() const override { return files_; }

 private:
  void add_token(std::string_view token, const std::string& where);
  /// Appends the pieces of a word of `characters` characters.
  void cut(std::string_view word, int64_t characters, std::vector<int32_t>& ids) const;

  std::vector<TokenizerFile> files_;
  WordPieceOptions options_;
  std::string text_;                                             // of the vocabulary
  std::vector<std::string_view> tokens_;                         // in text_
  std::unordered_map<std::string_view, int32_t> first_, later_;  // by what they match; later ones without their ##
  int32_t unknown_ = -1;
};

}  // namespace qn
