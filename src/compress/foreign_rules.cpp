#include "compress/foreign_rules.h"

#include <algorithm>
#include <array>
#include <functional>

#include "compress/fairseq_config.h"
#include "compress/python_yaml.h"
#include "core/error.h"
#include "core/file_kind.h"
#include "core/log.h"
#include "core/text.h"
#include "quant/int_quantizer.h"
#include "quant/kmeans.h"
#include "quant/pq_quantizer.h"

namespace qn {
namespace {

constexpr const char *kScalar = "scalar", *kLayers = "layers_to_quantize";
constexpr int64_t kDefaultCentroids = 256;
constexpr std::array<int64_t, 2> kDefaultBlocks{8, 4};

std::vector<StageRule> patterns_of(const PythonValue& list, const std::string& source) {
  QN_CHECK(list.type == PythonValue::Type::list && !list.items.empty(),
           "{}:{}: scalar.layers must be a list of patterns", source, list.line);
  std::vector<StageRule> patterns;
  for (const PythonValue* item : list.items) {
    QN_CHECK(item->is_text(), "{}:{}: a pattern in scalar.layers must be a text; quote it", source, item->line);
    patterns.push_back({item->text, fmt::format("{}:{}", source, item->line)});
  }
  return patterns;
}

ScalarRules scalar_rules(const PythonValue& section, const std::string& source) {
  static const std::array<std::string, 3> kKeys{"bits", "range", "layers"};
  const auto at = [&](const PythonValue& value) { return fmt::format("{}:{}: scalar", source, value.line); };
  QN_CHECK(section.type == PythonValue::Type::dict, "{} must be a map of bits, range and layers", at(section));
  ScalarRules rules;
  for (const auto& [key, value] : section.entries) {
    const std::string where = at(*key) + "." + key->text;
    QN_CHECK(std::find(kKeys.begin(), kKeys.end(), key->text) != kKeys.end(), "{}: a key {}", where,
             wrong_choice(key->text, fmt::format("'{}'", key->text), kKeys));
    if (key->text == kKeys[0]) {
      QN_CHECK(value->number && *value->number >= kMinScalarBits && *value->number <= kMaxScalarBits,
               "{} must be an integer from {} to {}", where, kMinScalarBits, kMaxScalarBits);
      rules.options.bits = static_cast<int>(*value->number);
    } else if (key->text == kKeys[1]) {
      rules.options.method = value_named<RangeMethod>(value->text, where);
    } else {
      rules.layers = patterns_of(*value, source);
    }
  }
  return rules;
}

/// What no earlier stage has, of `selected`.
std::vector<size_t> still_dense(const QuantizationPlan& plan, std::vector<size_t> selected) {
  std::sort(selected.begin(), selected.end());
  selected.erase(std::unique(selected.begin(), selected.end()), selected.end());
  std::erase_if(selected, [&](size_t i) { return plan.weights[i].stage >= 0; });
  return selected;
}

std::vector<size_t> large_weights(std::span<const WeightInfo> weights) {
  std::vector<size_t> large;
  for (size_t i = 0; i < weights.size(); ++i)
    if (weights[i].rows * weights[i].cols >= kForeignMinElements) large.push_back(i);
  return large;
}

/// A further stage; nothing happens when it would be empty.
void add_stage(QuantizationPlan& plan, const std::vector<size_t>& members,
               const std::function<std::shared_ptr<const Quantizer>(const WeightPlan&)>& quantizer) {
  if (members.empty()) return;
  for (const size_t i : members) {
    plan.weights[i].quantizer = quantizer(plan.weights[i]);
    plan.weights[i].stage = plan.stages;
  }
  ++plan.stages;
}

void plan_scalar(const ScalarRules& rules, std::span<const WeightInfo> weights, QuantizationPlan& plan) {
  std::vector<size_t> selected;
  if (!rules.layers)
    for (size_t i = 0; i < weights.size(); ++i) selected.push_back(i);
  for (const StageRule& rule : rules.layers.value_or(std::vector<StageRule>{}))
    for (const size_t i : select_weights(rule, weights)) selected.push_back(i);
  const auto quantizer = std::make_shared<IntQuantizer>(rules.options);
  add_stage(plan, still_dense(plan, std::move(selected)), [&](const WeightPlan&) { return quantizer; });
}

/// 0 where none divides the columns.
int64_t default_block(int64_t cols) {
  const auto* d = std::find_if(kDefaultBlocks.begin(), kDefaultBlocks.end(), [&](int64_t b) { return cols % b == 0; });
  return d == kDefaultBlocks.end() ? 0 : *d;
}

void plan_default(std::span<const WeightInfo> weights, QuantizationPlan& plan) {
  std::vector<size_t> selected = large_weights(weights);
  std::erase_if(selected, [&](size_t i) {
    const bool none = default_block(weights[i].cols) == 0;
    if (none)
      spdlog::warn("'{}' stays as it is: neither 8 nor 4 divide its {} columns; rules can give it another block size",
                   weights[i].name, weights[i].cols);
    return none;
  });
  add_stage(plan, selected, [](const WeightPlan& w) {
    const int64_t d = default_block(w.cols);
    return std::make_shared<PqQuantizer>(d, capped_centroids(w.rows * w.cols / d, kDefaultCentroids));
  });
}

}  // namespace

ForeignRules parse_foreign_rules(const std::string& text, const std::string& source) {
  static const std::array<std::string, 1> kOwn{kScalar};
  const PythonYaml document(text, source);
  const PythonValue& root = document.root();
  QN_CHECK(root.type == PythonValue::Type::dict, "{}: the file must have the section {} or {}, or both", source,
           kLayers, kScalar);
  ForeignRules rules;
  if (const PythonValue* section = root.find(kScalar)) rules.scalar = scalar_rules(*section, source);
  if (root.find(kLayers) != nullptr) rules.product = parse_quantize_rules(text, source, kOwn);
  const bool sizes_alone =
      !rules.product && (root.find("n_centroids") != nullptr || root.find("block_sizes") != nullptr);
  QN_CHECK(!sizes_alone && (rules.product || rules.scalar),
           "{}: {} is missing: there are no defaults for files of other programs. List patterns of the names to "
           "quantize, or use the section {}",
           source, kLayers, kScalar);
  return rules;
}

ForeignRules read_foreign_rules(const std::filesystem::path& path) {
  return parse_foreign_rules(read_text_file(path), path.string());
}

QuantizationPlan plan_foreign(const ForeignRules& rules, std::span<const WeightInfo> weights) {
  QuantizationPlan plan = rules.product ? make_plan(*rules.product, weights) : dense_plan(weights);
  if (rules.scalar) plan_scalar(*rules.scalar, weights, plan);
  if (!rules.product && !rules.scalar) plan_default(weights, plan);
  QN_CHECK(plan.stages > 0,
           "nothing is left to quantize: there are {} floating-point matrices, and without rules only those of at "
           "least {} elements are taken",
           weights.size(), kForeignMinElements);
  return plan;
}

}  // namespace qn
