// Which weight gets which noise, and is quantized when and how: one resolved table. Stages of iterative product
// quantization come from name patterns (fairseq semantics, "Iterative PQ" 3.4), noise from groups (noise.h).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "compress/activation_ranges.h"
#include "compress/noise_schedule.h"
#include "compress/norm_storage.h"
#include "nn/module.h"
#include "quant/quantizer.h"

namespace qn {

/// fairseq's layer type: "Linear", "Embedding", "Conv2d".
const char* layer_type(WeightKind kind);

/// What a plan needs to know about one weight.
struct WeightInfo {
  std::string name = {};  ///< "decoder.layers.0.fc1.weight" or without ".weight": patterns see it without
  WeightKind kind = WeightKind::linear;
  int64_t rows = 0;    ///< outputs, vocabulary size or output channels
  int64_t cols = 0;    ///< inputs, embedding width or (inputs / groups) * kernel height * kernel width
  int64_t kernel = 1;  ///< of a convolution: pixels of its kernel
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
  std::shared_ptr<const Quantizer> quantizer = nullptr;  ///< of all weights, in place of product quantization by sizes
  bool fit_blocks = false;                               ///< blocks that do not divide a weight's columns get smaller
  std::vector<StageRule> row_scales = {};                ///< product quantization of these has a scale for every row
  std::string source = {};                               ///< file the rules come from, empty for the defaults
};

/// fairseq's built-in rules: K = 256; blocks of 8 for feed-forward and embeddings, 4 for attention and for projections
/// of embeddings; three stages: feed-forward, embeddings, attention. The patterns also know RoBERTa's names, for which
/// fairseq's select nothing.
QuantizeRules default_quantize_rules();

/// Those for image networks, as far as `weights` have them: K = 256, blocks of a kernel's weights of one input channel
/// (9 or 25 values), and of 4 in convolutions of single pixels and the classifier (the paper's choices), of 2 where
/// squeeze and excitation has no multiple of 4 channels. Stages:
/// pointwise convolutions (of a ResNet all but the first), depthwise ones, squeeze and excitation, classifier. The
/// first convolution, whose inputs are the image, stays (Stock et al. 2019).
QuantizeRules default_image_rules(std::span<const WeightInfo> weights);

/// Noise of a weight in training.
struct WeightNoise {
  std::string form;  ///< see the table in noise.cpp; empty: none
  double rate = 0.0;
  int64_t block = 1;              ///< adjacent columns that share their fate
  QuantizerOptions options = {};  ///< of the quantizer that the noise imitates, where there is one
  NoiseSchedule schedule = {};
  bool operator==(const WeightNoise&) const = default;
};

struct WeightPlan {
  std::string name;   ///< WeightInfo::name
  std::string group;  ///< not part of the text
  int64_t rows = 0, cols = 0;
  int64_t kernel = 1;        ///< WeightInfo::kernel; not part of the text
  std::string tied_to = {};  ///< this weight comes into being, dense, when that one's tie is cut
  int64_t stage = -1;        ///< that quantizes it; -1: none does
  std::shared_ptr<const Quantizer> quantizer = nullptr;  ///< with a stage
  WeightNoise noise = {};
};

/// How a packed file holds what is not codes.
struct PackedStorage {
  ValueStorage side = ValueStorage::f16;  ///< centroids and the like
  ValueStorage dense = ValueStorage::f16;
  NormStorage norms = NormStorage::keep;
};

struct QuantizationPlan {
  std::vector<WeightPlan> weights;  ///< in the module's order, then those that cut ties bring
  int64_t stages = 0;
  bool cut_ties = false;  ///< ties of quantized weights are cut
  PackedStorage storage;
  std::vector<ActivationPlan> activations = {};
  bool round_activations = false;  ///< in training, too; see quantize_activations()

  /// The weights of a stage, in order.
  std::vector<WeightPlan> stage(int64_t stage) const;
  /// All weights that are quantized, by stage.
  std::vector<WeightPlan> quantized() const;
  const WeightPlan* find(const std::string& name) const;  ///< nullptr when there is none
  /// Has a weight quantized in a stage, which may be one more than there are. Throws qn::Error when there is no such
  /// weight or the quantizer cannot quantize it.
  void quantize(const std::string& name, int64_t stage, std::shared_ptr<const Quantizer> quantizer);
};

/// "(3, 3)", as Python writes it.
std::string kernel_text(int64_t height, int64_t width);
/// Pixels of a convolution's kernel; 1 for other weights.
int64_t kernel_pixels(const Weight& weight);

/// What a plan needs to know of the weights of a module.
std::vector<WeightInfo> infos_of(const WeightSet& weights);

/// Every weight as it is: no stages, no noise.
QuantizationPlan dense_plan(std::span<const WeightInfo> weights);

/// Indices of the weights that a stage's pattern selects, by name or alias; a pattern whose backslashes are doubled is
/// repaired with a warning. Throws qn::Error with the nearest names when it selects none.
std::vector<size_t> select_weights(const StageRule& rule, std::span<const WeightInfo> weights);

/// Applies the rules to a model's weights. A weight that several stages match belongs to the first (logged). A pattern
/// that matches nothing only because its backslashes are doubled, as in fairseq's example file, is repaired with a
/// warning. K is capped to a quarter of the number of blocks (logged).
/// Throws qn::Error naming pattern or weight: pattern invalid, matching nothing (with the nearest names) or only what
/// earlier stages took; no rule for a layer type or name; an attribute that layers of the type do not
/// have; cols not divisible by the block size (with sizes that fit);
/// K outside 2..65536.
QuantizationPlan make_plan(const QuantizeRules& rules, std::span<const WeightInfo> weights);

/// The quantized weights as dense weights of their own where they are tied, from now on: plan.cut_ties.
void plan_cut_ties(QuantizationPlan& plan, const WeightSet& weights);

/// Which weight goes to which stage with which quantizer and predicted bytes (fixed-width text, for --dry-run).
std::string describe(const QuantizationPlan& plan);

/// The plan as JSON, on one line, and back. Throws qn::Error, beginning with `where`, for texts that are no plan.
std::string plan_to_text(const QuantizationPlan& plan);
QuantizationPlan plan_from_text(const std::string& text, const std::string& where);

/// Throws qn::Error naming the weight when the plan is for other weights than these.
void check_plan(const QuantizationPlan& plan, const WeightSet& weights, const std::string& where);

/// How two plans quantize differently, a line per weight; empty when they do not.
std::vector<std::string> quantization_differences(const QuantizationPlan& stored, const QuantizationPlan& fresh);

}  // namespace qn
