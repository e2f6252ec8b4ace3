#include "data/token_blocks.h"

#include <algorithm>

#include "core/error.h"
#include "data/dictionary.h"

namespace qn {
namespace {

// A sentence of only </s> is a blank line: the mark between documents.
constexpr int32_t kDocumentSeparatorLength = 1;

}  // namespace

TokenBlocks::TokenBlocks(const TokenStream& stream, const BlockOptions& options) : stream_(&stream), options_(options) {
  QN_CHECK(options.mode == BreakMode::eos || (options.block_size > 0 && options.block_size <= INT32_MAX),
           "tokens per sample must be 1 or more, is {}", options.block_size);
  if (options.mode == BreakMode::none) {
    count_ = (stream.total_tokens() + options.block_size - 1) / options.block_size;
  } else {
    cut_at_sentences();
    count_ = static_cast<int64_t>(begins_.size());
  }
}

void TokenBlocks::cut_at_sentences() {
  const bool by_document = options_.mode == BreakMode::complete_doc;
  const int64_t block_size = options_.mode == BreakMode::eos ? 0 : options_.block_size;
  const int64_t shortest = by_document ? kDocumentSeparatorLength + 1 : 1;
  int64_t begin = 0, length = 0;
  const auto end_block = [&] {
    QN_CHECK(length <= INT32_MAX, "{}: a sentence of {} tokens is too long", stream_->name(), length);
    if (length >= shortest) {
      begins_.push_back(begin);
      lengths_.push_back(static_cast<int32_t>(length));
    }
    begin += length;
    length = 0;
  };
  for (const int32_t size : stream_->sentence_sizes()) {
    const bool separator = by_document && size == kDocumentSeparatorLength;
    if (separator || (length > 0 && length + size > block_size)) end_block();
    if (separator) {
      begin += size;
    } else {
      length += size;
    }
  }
  end_block();
}

BlockRange TokenBlocks::range(int64_t block) const {
  QN_ASSERT(block >= 0 && block < count_, "block {} of {}", block, count_);
  if (options_.mode == BreakMode::none) {
    const int64_t begin = block * options_.block_size;
    return {begin, std::min(options_.block_size, stream_->total_tokens() - begin)};
  }
  return {begins_[static_cast<size_t>(block)], lengths_[static_cast<size_t>(block)]};
}

void TokenBlocks::fill_target(int64_t block, int32_t* out) const {
  const BlockRange r = range(block);
  stream_->tokens(r.begin, r.length, out);
}

void TokenBlocks::fill_source(int64_t block, int32_t* out) const {
  const BlockRange r = range(block);
  // Streams made without </s> at sentence ends need the question; in others the previous token is </s> anyway.
  out[0] = stream_->is_sentence_start(r.begin) ? kEosId : stream_->token(r.begin - 1);
  stream_->tokens(r.begin, r.length - 1, out + 1);
}

}  // namespace qn
