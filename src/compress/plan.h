// Which weight is quantized when, and how: stages of iterative product quantization from name patterns
// (fairseq semantics, "Iterative PQ" 3.4).
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "compress/size_report.h"
#include "nn/weight.h"

namespace qn {

/// fairseq's layer type: "Linear", "Embedding", "Conv2d".
const char* layer_type(WeightKind kind);

/// What a plan needs to know about one weight.
struct WeightInfo {
  std::string name = {};  ///< "decoder.layers.0.fc1.weight" or without ".weight": patterns see it without
  WeightKind kind = WeightKind::linear;
  int64_t rows = 0;  ///< outputs, vocabulary size or output channels
  int64_t cols = 0;  ///< inputs, embedding width or (inputs / groups) * kernel height * kernel width
  std::string group = {};
  std::vector<std::string> aliases = {};  ///< further names of the same (tied) weight
  /// Texts of the layer's attributes beyond those that follow from the members above, as Python's str() writes them:
  /// kernel_size is "(3, 3)", padding_idx may be "None".
  std::map<std::string, std::string> attributes = {};
};

/// One stage: every weight whose name starts with a match of the regular expression (name_pattern.h).
struct StageRule {
  std::string pattern;
  std::string where;  ///< "file.yaml:12" for messages, may be empty
};

/// How one layer type finds a number: `key` is "fuzzy_name" (the first entry whose text is part of the layer's name
/// wins) or an attribute such as in_features (the entry equal to its text wins); "*" fits everything else.
struct SizeRule {
  /// A key that is no text to YAML. fairseq compares texts, so it equals no attribute, and it cannot search names for
  /// it.
  struct OtherKey {
    std::string text;   ///< as the file has it
    std::string type;   ///< "an integer"
    std::string where;  ///< "file.yaml:12"
  };

  std::string key;
  std::vector<std::pair<std::string, int64_t>> values;  ///< in file order
  std::vector<OtherKey> other_keys = {};

  bool is_fuzzy() const { return key == "fuzzy_name"; }
};

struct QuantizeRules {
  std::map<std::string, SizeRule> n_centroids;  ///< by layer type
  std::map<std::string, SizeRule> block_sizes;  ///< by layer type
  std::vector<StageRule> stages;
  std::string source;  ///< file the rules come from, empty for the defaults
};

/// fairseq's built-in rules: K = 256; blocks of 8 for feed-forward and embeddings, 4 for attention and for projections
/// of embeddings; three stages: feed-forward, embeddings, attention. The patterns also know RoBERTa's names, for which
/// fairseq's select nothing.
QuantizeRules default_quantize_rules();

struct PlannedWeight {
  std::string name;  ///< WeightInfo::name
  int64_t stage = 0;
  int64_t rows = 0, cols = 0;
  int64_t block_size = 8;
  int64_t n_centroids = 256;  ///< after capping

  PqShape shape() const { return {rows, cols, block_size, n_centroids}; }
};

struct QuantizePlan {
  std::vector<std::vector<PlannedWeight>> stages;

  /// Every planned weight, in stage order.
  std::vector<PlannedWeight> all() const;
};

/// Applies the rules to a model's weights. A weight that several stages match belongs to the first (logged). A pattern
/// that matches nothing only because its backslashes are doubled, as in fairseq's example file, is repaired with a
/// warning. K is capped to a quarter of the number of blocks (logged).
/// Throws qn::Error naming pattern or weight: pattern invalid, matching nothing (with the nearest names) or only what
/// earlier stages took; no rule for a layer type or name; an attribute that layers of the type do not
/// have; cols not divisible by the block size (with sizes that fit);
/// K outside 2..65536.
QuantizePlan make_plan(const QuantizeRules& rules, std::span<const WeightInfo> weights);

/// Which weight goes to which stage with block size, K and predicted bytes (fixed-width text, for --dry-run).
std::string describe(const QuantizePlan& plan, ValueStorage centroids);

}  // namespace qn
