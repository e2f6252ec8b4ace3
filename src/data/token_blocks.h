// Cuts a token stream into the blocks that a language model trains on (fairseq semantics 6.2).
#pragma once

#include <cstdint>
#include <vector>

#include "core/enum_names.h"
#include "data/token_stream.h"

namespace qn {

/// Where blocks may end: none: after exactly block_size tokens; complete: whole sentences while they fit; complete_doc:
/// as complete, and blank lines end a document and are left out; eos: one sentence per block.
enum class BreakMode { none, complete, complete_doc, eos };
template <>
struct EnumNames<BreakMode> {
  static constexpr EnumName<BreakMode> kAll[] = {{BreakMode::none, "none"},
                                                 {BreakMode::complete, "complete"},
                                                 {BreakMode::complete_doc, "complete_doc"},
                                                 {BreakMode::eos, "eos"}};
};

struct BlockOptions {
  BreakMode mode = BreakMode::none;
  int64_t block_size = 512;  ///< tokens per block; not used by eos
};

/// A block is the stream range [begin, begin + length).
struct BlockRange {
  int64_t begin = 0, length = 0;
};

class TokenBlocks {
 public:
  /// `stream` must outlive the blocks. Mode none stores nothing per block. In the sentence modes a sentence longer than
  /// block_size becomes a block of its own that is longer than block_size.
  TokenBlocks(const TokenStream& stream, const BlockOptions& options);

  int64_t size() const { return count_; }
  BlockRange range(int64_t block) const;
  int64_t length(int64_t block) const { return range(block).length; }

  /// The block's tokens; `out` has room for length(block).
  void fill_target(int64_t block, int32_t* out) const;
  /// What the model sees: the target delayed by one token. The first one is </s> if the block starts at a sentence
  /// start, else the stream's previous token.
  void fill_source(int64_t block, int32_t* out) const;

 private:
  void cut_at_sentences();

  const TokenStream* stream_;
  BlockOptions options_;
  int64_t count_ = 0;
  std::vector<int64_t> begins_;  // empty in mode none
  std::vector<int32_t> lengths_;
};

}  // namespace qn
