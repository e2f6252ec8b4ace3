// The tensors of Hugging Face's models and ours: one table of names per family.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/tensor_files.h"
#include "nn/module.h"
#include "nn/state_dict.h"
#include "tasks/hf_vocabulary.h"

namespace qn {

/// How their values lie.
enum class HfLayout : uint8_t {
  same,
  transposed,  ///< [in, out] of GPT-2's Conv1D
  fused,       ///< [in, 3 out] (transposed) or [3 out]: three of ours side by side
  tokens,      ///< rows in the order of their vocabulary
  positions,   ///< without our two rows for padding at the beginning
  added,       ///< one row that is added to all rows of ours, which another line has filled; zero on the way out
};

/// A line of a table. In names {} stands for the number of a layer.
struct HfName {
  std::string theirs;
  std::vector<std::string> ours;
  HfLayout layout = HfLayout::same;
  std::string second = {};     ///< a name of theirs that counts in its place where a file has both
  std::string second_of = {};  ///< files have both where we have this
  bool spare = false;          ///< checkpoints keep it also where the module has no use for it: see keep_spare()
};

struct HfFamily {
  std::string name;    ///< --as
  std::string prefix;  ///< of names: files of models without a head lack it
  /// Endings of names, and what old files have in their place.
  std::vector<std::pair<std::string, std::string>> formerly;
  std::vector<HfName> names;
  std::vector<std::string> ignored;  ///< what no result depends on: buffers, parts that no head uses
};

const HfFamily& gpt2_family();
/// Of masked-LM and classification models, and of encoders alone. Our RoBERTa adds no token types: theirs has one,
/// which is added to the positions.
const HfFamily& roberta_family();
/// Likewise. The pooler is the first half of our classification head.
const HfFamily& bert_family();

/// Fills the parameters of an allocated module from `files`. Throws qn::Error listing tensors that the table does not
/// have, tensors that are missing, or naming one of another shape or type, or that is not finite.
void import_tensors(const HfFamily& family, int64_t layers, const TensorFiles& files, const HfVocabulary& vocabulary,
                    Module& module);

/// Adds to the checkpoint of a module of this width what a file has for other heads on the same encoder: the pooler of
/// BERT, with which a classifier begins (SentencePrediction::adapt_weights). Throws as import_tensors().
void keep_spare(const HfFamily& family, const TensorFiles& files, int64_t width, const Module& module,
                StateDict& state);

/// Their tensors (float32) from the values of ours. `value_of` gives a parameter or weight by its name: its matrix, row
/// by row. Names have the prefix, unless `bare`.
void export_tensors(const HfFamily& family, int64_t layers, const HfVocabulary& vocabulary, const Module& module,
                    const std::function<std::vector<float>(const std::string&)>& value_of, bool bare,
                    SafetensorsWriter& out);

}  // namespace qn
