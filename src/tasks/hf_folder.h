// Models of Hugging Face's transformers, in and out: a folder with config.json, safetensors (one file, or several with
// an index) and the tokenizer's files.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

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
inline constexpr const char *kImportedCheckpoint = "imported.h5", *kImportedConfig = "config.yaml",
                            *kClassNames = "label/dict.txt";

struct ImportSummary {
  std::string task;  ///< what the checkpoint is for
  int64_t parameters = 0;
  std::string details = {};            ///< "vocabulary 30,522, 512 positions"
  std::optional<bool> tokenizer = {};  ///< of models of text: there was one; otherwise ids are taken as they are
  int64_t classes = 0;                 ///< of classifiers of text
};

/// Makes `out` a folder with a checkpoint of the model in `source` (a folder, or a safetensors file beside a
/// config.json), the configuration to go on with, its dictionary, its tokenizer's files and the names of its classes:
/// those of `classes`, a text with a line each, where that is not empty. Throws qn::Error naming
/// what is missing, what nothing is known of, or what this program's models do not do.
ImportSummary import_hf(const std::filesystem::path& source, HfKind kind, const std::filesystem::path& out,
                        const std::filesystem::path& classes = {});

/// Makes `out` a folder from which transformers loads `model`, which was read from the file `model_name`, decoded to
/// float32; returns the names of what it has written there. `vocabulary`: a folder with dict.txt and, perhaps, a
/// tokenizer (of an import, or of prepared data), which tells their ids; empty: what the file carries, or has beside
/// it; where there is nothing, ids stay as they are here, with a warning. Throws qn::Error where transformers has no
/// model of this form, or the dictionary is another one.
std::vector<std::string> export_hf(const ModelFile& model, const std::string& model_name,
                                   const std::filesystem::path& vocabulary, const std::filesystem::path& out);

}  // namespace qn
