// Which entry of our dictionary is which token of a Hugging Face model. Ours begins with <s>, <pad>, </s>, <unk>.
#pragma once

#include <string>
#include <vector>

#include "data/dictionary.h"
#include "data/tokenizer.h"

namespace qn {

struct HfVocabulary {
  Dictionary dictionary;
  std::vector<int32_t> theirs;  ///< of every id of the model, in order: their id
  bool known = false;           ///< made from a tokenizer; otherwise ids are taken as they are

  /// Rows of a matrix [tokens, width] in our order, from theirs; and back.
  std::vector<float> to_ours(const std::vector<float>& rows) const;
  std::vector<float> to_theirs(const std::vector<float>& rows) const;
};

/// For GPT-2, whose vocabulary has no special symbols but its end of text, of its byte pairs. Our </s> is
/// <|endoftext|>; <s>, <pad> and <unk> are the tokens of the bytes 0xc0, 0xc1 and 0xf5, which UTF-8 does not have: so
/// nothing is added, nothing is lost, and the softmax is the same. The other tokens follow in their order. Without a
/// tokenizer (null) ids are taken as they are, and the dictionary has numbers for words. Throws qn::Error when the
/// files do not fit a model of `size` tokens.
HfVocabulary gpt2_vocabulary(const Tokenizer* tokenizer, int64_t size);

/// For RoBERTa, whose ids are ours, <mask> being the last one. The dictionary leaves <mask> out, as that of fairseq
/// does: the task adds it.
HfVocabulary roberta_vocabulary(const Tokenizer* tokenizer, int64_t size);

/// For BERT, of its word pieces. Our <s>, <pad>, </s> and <unk> are [CLS], [PAD], [SEP] and [UNK]; the other
/// pieces follow in their order, and [MASK] is the last one, which the dictionary leaves out, as above.
HfVocabulary bert_vocabulary(const Tokenizer* tokenizer, int64_t size);

}  // namespace qn
