// Tokenizers as files that transformers loads, beside a model that export_hf() writes.
#pragma once

#include <string>
#include <vector>

#include "data/vocabulary.h"
#include "models/model_config.h"

namespace qn {

/// A file and its text.
struct HfFile {
  std::string name, text;
};

/// The tokenizer's own files by Hugging Face's names: for models whose ids are the tokenizer's.
std::vector<HfFile> tokenizer_files(const Tokenizer& tokenizer);

/// Files of the same tokenizer with other ids: those of the vocabulary's dictionary, in which <s>, <pad>, </s> and
/// <unk> are 0 to 3, and <mask> is `size` - 1 where the model is an encoder. For byte pairs of RoBERTa and GPT-2, and
/// word pieces of BERT. None where transformers could not do the same; `why` says then what is missing.
std::vector<HfFile> renumbered_tokenizer(const Vocabulary& vocabulary, ModelType type, int64_t size, std::string& why);

}  // namespace qn
