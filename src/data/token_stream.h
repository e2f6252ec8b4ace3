// A corpus as one stream of token ids cut into sentences, in fairseq's mmap format (fairseq semantics 6.1): PREFIX.bin
// holds the raw ids, PREFIX.idx the element type, sentence sizes and byte offsets. Directories made by
// fairseq-preprocess are read as they are, and what is written here is byte for byte what fairseq-preprocess writes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "core/file_io.h"
#include "data/dictionary.h"

namespace qn {

/// Element types of .bin files by their code in the .idx file. Codes 6 and 7 are floating point and are not accepted.
enum class TokenType : uint8_t { u8 = 1, i8 = 2, i16 = 3, i32 = 4, i64 = 5, u16 = 8, u32 = 9, u64 = 10 };

/// Bytes per token; 0 for a code that is no token type.
size_t token_bytes(TokenType type);

/// Names of the splits of a prepared folder, sorted.
std::vector<std::string> splits_in(const std::filesystem::path& directory);

/// The type fairseq chooses for a vocabulary of this size.
TokenType token_type_for(int64_t vocabulary_size);

/// Read access; memory-mapped, so opening costs no more than reading the sentence sizes. Safe to read from many
/// threads.
class TokenStream {
 public:
  /// Opens PREFIX.idx and PREFIX.bin and checks that they are complete and belong together. Throws qn::Error with the
  /// file, what is wrong and what to do.
  explicit TokenStream(const std::filesystem::path& prefix);

  /// Opens split `name` (train, valid, test, valid1, ...) of a prepared directory; a missing split is an error that
  /// lists what the directory holds.
  static TokenStream open(const std::filesystem::path& directory, const std::string& name);

  const std::string& name() const { return name_; }
  int64_t sentences() const { return static_cast<int64_t>(sizes_.size()); }
  int64_t total_tokens() const { return total_tokens_; }
  /// Tokens per sentence, the closing </s> included.
  const std::vector<int32_t>& sentence_sizes() const { return sizes_; }
  /// Position in the stream of a sentence's first token; `sentence` in [0, sentences()].
  int64_t sentence_begin(int64_t sentence) const;
  /// True if a sentence starts at stream position `position`.
  bool is_sentence_start(int64_t position) const;

  /// Copies the ids of stream positions [begin, begin + count) to `out`.
  void tokens(int64_t begin, int64_t count, int32_t* out) const;
  int32_t token(int64_t position) const;
  /// All of a sentence, its </s> included.
  std::vector<int32_t> sentence(int64_t sentence) const;

  /// Reads the whole stream once and throws qn::Error unless every id is in [0, vocabulary_size): the usual sign of a
  /// stream made with another dictionary.
  void check_vocabulary(int64_t vocabulary_size) const;
  /// Reads both files once: are they as they were prepared (SPLIT.sum, where there is one), with this dictionary, and
  /// is every id in its range? Throws qn::Error, or returns a checksum of ids and sentence sizes.
  uint64_t verify(const Dictionary& dictionary) const;
  /// How often each id occurs, [vocabulary_size]; one pass. Ids must be in range (check_vocabulary()).
  std::vector<int64_t> counts(int64_t vocabulary_size) const;

 private:
  void read_index();
  void check_data();
  void check_checksum(const Dictionary& dictionary, uint64_t bin, uint64_t idx) const;
  void warn_of_padding() const;

  std::string name_;  // the prefix, for messages
  MappedFile index_, data_;
  TokenType type_ = TokenType::u16;
  std::vector<int32_t> sizes_;
  int64_t total_tokens_ = 0;
};

/// Receives the sentences of a stream that is being written; see write_token_stream().
class TokenStreamWriter {
 public:
  /// Writes raw ids of type `type` to `file`, which exists and is empty.
  TokenStreamWriter(const std::filesystem::path& file, TokenType type);

  void add_token(int32_t id) {
    buffer_.push_back(id);
    if (buffer_.size() == kBufferedTokens) flush();
  }
  /// Ends the current sentence; the caller has added its </s>.
  void end_sentence();

  int64_t sentences() const { return static_cast<int64_t>(sizes_.size()); }
  int64_t tokens() const { return written_ + static_cast<int64_t>(buffer_.size()); }
  const std::vector<int32_t>& sentence_sizes() const { return sizes_; }
  /// Writes what is buffered; throws qn::Error when the disk is full.
  void flush();

 private:
  static constexpr size_t kBufferedTokens = 1 << 16;
  template <typename T>
  void write_as();

  FileDescriptor file_;
  size_t bytes_ = 0;
  TokenType type_;
  std::vector<int32_t> buffer_, sizes_;
  int64_t written_ = 0, sentence_begin_ = 0;
};

/// Writes PREFIX.bin with what `fill` hands to the writer, then PREFIX.idx; each appears complete or not at all, and
/// nothing appears when `fill` throws. Ids must be below `vocabulary_size`, which decides the element type.
void write_token_stream(const std::filesystem::path& prefix, int64_t vocabulary_size,
                        const std::function<void(TokenStreamWriter&)>& fill);

}  // namespace qn
