// What is to become of the matrices of a file that this project did not make (docs/formats.md, section 8): fairseq's
// rules for product quantization, and a section `scalar` of ours in the same file.
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "compress/plan.h"
#include "quant/scalar_quantizer.h"

namespace qn {

/// Without any rules, smaller matrices stay as they are.
inline constexpr int64_t kForeignMinElements = 4096;

/// The section `scalar`.
struct ScalarRules {
  ScalarOptions options{.bits = 8, .method = RangeMethod::channel};
  std::optional<std::vector<StageRule>> layers = {};  ///< none: every matrix
};

/// Neither: product quantization of every matrix of at least kForeignMinElements, K = 256, in blocks of 8 columns, or 4
/// where 8 does not divide them.
struct ForeignRules {
  std::optional<QuantizeRules> product;
  std::optional<ScalarRules> scalar;
};

/// Throws qn::Error with source, line and key; unknown keys of `scalar` are refused, and so is a file that selects
/// nothing: the layers that fairseq selects by default are those of its language models.
ForeignRules parse_foreign_rules(const std::string& text, const std::string& source);
ForeignRules read_foreign_rules(const std::filesystem::path& path);

/// One stage per pattern of `layers_to_quantize`, then one for what `scalar` takes of the rest. Throws as make_plan()
/// does, and when nothing is left to quantize.
QuantizationPlan plan_foreign(const ForeignRules& rules, std::span<const WeightInfo> weights);

}  // namespace qn
