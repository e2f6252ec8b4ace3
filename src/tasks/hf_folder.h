// Models of Hugging Face's transformers, in and out: a folder with config.json, safetensors (one file, or several with
// an index) and the tokenizer's files.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "core/enum_names.h"
#include "tasks/model_file.h"

namespace qn {

enum class HfKind : uint8_t { gpt2, roberta, bert, efficientnet };
template <>
struct EnumNames<HfKind> {
  static constexpr EnumName<HfKind> kAll[] = {{HfKind::gpt2, "gpt2"},
                                              {HfKind::roberta, "roberta"},
                                              {HfKind::bert, "bert"},
                                              {HfKind::efficientnet, "efficientnet"}};
};

/// What import_hf() writes into its folder, beside the tokenizer's files (data/tokenizer.h).
inline constexpr const char *kImportedCheckpoint = "imported.h5", *kImportedConfig = "config.yaml";

struct ImportSummary {
  std::string task;  ///< what the checkpoint is for
  int64_t parameters = 0;
  std::string details = {};            ///< "vocabulary 30,522, 512 positions"
  std::optional<bool> tokenizer = {};  ///< of models of text: there was one; otherwise ids are taken as they are
};

/// Makes `out` a folder with a checkpoint of the model in `source` (a folder, or a safetensors file beside a
/// config.json), the configuration to go on with, its dictionary and its tokenizer's files. Throws qn::Error naming
/// what is missing, what nothing is known of, or what this program's models do not do.
ImportSummary import_hf(const std::filesystem::path& source, HfKind kind, const std::filesystem::path& out);

/// Makes `out` a folder from which transformers loads `model`, decoded to float32. `vocabulary`: a folder with dict.txt
/// and, perhaps, a tokenizer (of an import, or of prepared data), which tells their ids; empty: ids as they are here.
/// Throws qn::Error where transformers has no model of this form, or the dictionary is another one.
void export_hf(const ModelFile& model, const std::string& model_name, const std::filesystem::path& vocabulary,
               const std::filesystem::path& out);

}  // namespace qn
