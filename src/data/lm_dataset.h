// Language-model samples: blocks of a token stream and the batches made of them.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "data/dictionary.h"
#include "data/token_blocks.h"
#include "data/token_stream.h"

namespace qn {

/// One micro-batch: source and target are [rows, cols], row-major, padded on the right.
struct Batch {
  int64_t rows = 0, cols = 0;
  std::vector<int32_t> source, target;
  int64_t tokens = 0;  ///< targets that are not padding: what the loss is summed over
};

class LmDataset {
 public:
  LmDataset(std::shared_ptr<const TokenStream> stream, const BlockOptions& options, int32_t pad = kPadId);

  /// Number of blocks.
  int64_t size() const { return blocks_.size(); }
  /// Tokens per block.
  std::vector<int32_t> lengths() const;
  const TokenStream& stream() const { return *stream_; }
  const TokenBlocks& blocks() const { return blocks_; }

  /// The batch of these blocks, one row each, as wide as the longest. No items: an empty batch.
  Batch collate(std::span<const int64_t> items) const;

 private:
  std::shared_ptr<const TokenStream> stream_;
  TokenBlocks blocks_;
  int32_t pad_;
};

}  // namespace qn
