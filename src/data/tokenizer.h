// How text becomes words of a dictionary where these are not what stands between spaces, but pieces of words from a
// vocabulary that was made beforehand: GPT-2's and RoBERTa's byte pairs, BERT's word pieces.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qn {

/// One of the files that a tokenizer is made from.
struct TokenizerFile {
  std::filesystem::path path;  ///< its name says what it is; the folder is for messages
  std::string text;
};

class Tokenizer {
 public:
  /// Belongs to one thread: it remembers what it has computed.
  class Splitter {
   public:
    virtual ~Splitter() = default;
    /// Appends the words of `text`, which must be UTF-8. They live as long as the tokenizer.
    virtual void split(std::string_view text, std::vector<std::string_view>& words) = 0;
  };

  virtual ~Tokenizer() = default;
  virtual std::unique_ptr<Splitter> splitter() const = 0;
  /// The text that these words make; words of other vocabularies are left out.
  virtual std::string join(std::span<const std::string_view> words) const = 0;
  virtual bool contains(std::string_view word) const = 0;
  /// Whether what stands between spaces begins with this piece: where masking of whole words may begin.
  virtual bool begins_word(std::string_view word) const = 0;
  /// All words that it can make, in the order of its ids.
  virtual std::vector<std::string_view> words() const = 0;
  /// What it was made from: make_tokenizer() makes the same of them.
  virtual const std::vector<TokenizerFile>& files() const = 0;
};

/// The tokenizer of these files, which must be what find_tokenizer() looks for. Throws qn::Error naming what is wrong.
std::unique_ptr<Tokenizer> make_tokenizer(std::vector<TokenizerFile> files);

/// The tokenizer whose files are in `folder`: encoder.json and vocab.bpe (fairseq, GPT-2), vocab.json and merges.txt
/// (Hugging Face's names for the same), vocab.txt (BERT), or tokenizer.json (all of these). Throws qn::Error naming
/// what is missing or wrong.
std::unique_ptr<Tokenizer> open_tokenizer(const std::filesystem::path& folder);
/// The same; nothing where there are no such files.
std::unique_ptr<Tokenizer> find_tokenizer(const std::filesystem::path& folder);

/// Prepared data keep a copy of their tokenizer's files in this folder.
inline constexpr const char* kTokenizerFolder = "tokenizer";
/// Makes that folder of `data` hold the files of `tokenizer`, or vanish where there is none.
void save_tokenizer(const std::filesystem::path& data, const Tokenizer* tokenizer);

}  // namespace qn
