// tokenizer.json, the single file in which Hugging Face's package `tokenizers` keeps a tokenizer: what it says of
// byte-level pairs (GPT-2, RoBERTa) and word pieces (BERT). Its post-processor and decoder are not needed: what stands
// before and behind a sentence is the task's business.
#pragma once

#include <memory>

#include "data/tokenizer.h"

namespace qn {

/// Throws qn::Error naming the file and the entry where it is damaged, or asks for something that is not done here: a
/// text would become other tokens than those that the model was trained with.
std::unique_ptr<Tokenizer> read_tokenizer_json(TokenizerFile file);

}  // namespace qn
