#include "compress/plan.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <numeric>

#include "compress/name_pattern.h"
#include "compress/size_report.h"
#include "core/error.h"
#include "core/log.h"
#include "core/special_tokens.h"
#include "core/text.h"
#include "quant/kmeans.h"
#include "quant/pq_quantizer.h"

namespace qn {
namespace {

constexpr int64_t kLargestSuggestedBlock = 32;

/// The layer's name: fairseq matches module names, which end before ".weight".
std::string layer_name(std::string_view name) {
  constexpr std::string_view kSuffix = ".weight";
  if (name.ends_with(kSuffix)) name.remove_suffix(kSuffix.size());
  return std::string(name);
}

std::string located(const std::string& where, const std::string& text) {
  return where.empty() ? text : where + ": " + text;
}

std::vector<size_t> find_matches(const NamePattern& pattern, std::span<const WeightInfo> weights) {
  std::vector<size_t> found;
  for (size_t i = 0; i < weights.size(); ++i) {
    const bool by_alias = std::any_of(weights[i].aliases.begin(), weights[i].aliases.end(),
                                      [&](const std::string& alias) { return pattern.matches(layer_name(alias)); });
    if (by_alias || pattern.matches(layer_name(weights[i].name))) found.push_back(i);
  }
  return found;
}

std::string with_single_backslashes(std::string text) {
  for (size_t at = text.find("\\\\"); at != std::string::npos; at = text.find("\\\\", at + 1)) text.erase(at, 1);
  return text;
}

/// A pattern as text to compare names with: without its escapes.
std::string without_backslashes(std::string text) {
  std::erase(text, '\\');
  return text;
}

/// What fairseq's layer has that does not follow from the weight's matrix: of token tables, only the one with the
/// padding token's row knows it.
std::map<std::string, std::string> own_attributes(const Weight& weight) {
  if (weight.kind() == WeightKind::conv) return {{"kernel_size", kernel_text(weight.shape()[2], weight.shape()[3])}};
  if (weight.kind() != WeightKind::embedding || weight.first_token() < 0) return {};
  const bool has_padding = weight.first_token() <= kPadId && kPadId < weight.first_token() + weight.rows();
  return {{"padding_idx", has_padding ? std::to_string(kPadId - weight.first_token()) : "None"}};
}

/// The attributes of a torch layer that rules may ask for, as Python's str() writes them: what follows from the
/// weight's shape, what is the same for every layer that fairseq builds, and what the weight brings.
std::map<std::string, std::string> attributes_of(const WeightInfo& weight) {
  std::map<std::string, std::string> all = weight.attributes;
  const std::string rows = std::to_string(weight.rows), cols = std::to_string(weight.cols);
  switch (weight.kind) {
    case WeightKind::linear:
      all.merge(std::map<std::string, std::string>{{"in_features", cols}, {"out_features", rows}});
      break;
    case WeightKind::embedding:
      all.merge(std::map<std::string, std::string>{{"embedding_dim", cols},
                                                   {"max_norm", "None"},
                                                   {"norm_type", "2.0"},
                                                   {"num_embeddings", rows},
                                                   {"scale_grad_by_freq", "False"},
                                                   {"sparse", "False"}});
      break;
    case WeightKind::conv:
      all.merge(std::map<std::string, std::string>{
          {"out_channels", rows}, {"output_padding", "(0, 0)"}, {"transposed", "False"}});
      break;
  }
  return all;
}

/// The text that a rule looks up. `place` names the rule in messages.
std::string looked_up(const SizeRule& rule, const std::string& place, const WeightInfo& weight) {
  const std::string name = layer_name(weight.name);
  if (rule.is_fuzzy()) return name;
  QN_CHECK(
      rule.key != "weight" && rule.key != "bias",
      "{}: the '{}' of '{}' is a tensor, which no text in the rules can equal; use another attribute or fuzzy_name",
      place, rule.key, name);
  const std::map<std::string, std::string> attributes = attributes_of(weight);
  if (const auto it = attributes.find(rule.key); it != attributes.end()) return it->second;
  std::vector<std::string> known;
  for (const auto& attribute : attributes) known.push_back(attribute.first);
  fail("{}: '{}' has no attribute '{}'; there are {}, and fuzzy_name", place, name, rule.key, fmt::join(known, ", "));
}

/// The number that `section` ("block_sizes" or "n_centroids") gives to a weight.
int64_t look_up(const std::map<std::string, SizeRule>& section_rules, const char* section, const std::string& source,
                const WeightInfo& weight) {
  const std::string type = layer_type(weight.kind);
  const std::string name = layer_name(weight.name);
  const auto it = section_rules.find(type);
  if (it == section_rules.end())
    throw Error(located(source, fmt::format("{} has no entry for {}, the type of '{}'; add one", section, type, name)));
  const SizeRule& rule = it->second;
  const std::string place = located(source, fmt::format("{}.{}", section, type));
  if (rule.is_fuzzy() && !rule.other_keys.empty()) {
    const SizeRule::OtherKey& other = rule.other_keys.front();
    fail("{}: in {}.{} names are searched for the key {}, which is {} to YAML, not a text; quote it: \"{}\"",
         other.where, section, type, other.text, other.type, other.text);
  }
  const std::string value = looked_up(rule, place, weight);
  for (const auto& [text, number] : rule.values)
    if (rule.is_fuzzy() ? value.find(text) != std::string::npos : value == text) return number;
  for (const auto& [text, number] : rule.values)
    if (text == "*") return number;
  std::string hint;
  for (const SizeRule::OtherKey& other : rule.other_keys)
    if (other.text == value)
      hint = fmt::format("; the key {} ({}) is {}: quote it", other.text, other.where, other.type);
  fail("{}: nothing fits '{}' ({} {}); add an entry for it or for \"*\"{}", place, name, rule.key, value, hint);
}

/// Divisors of `cols` that make sense as block sizes.
std::vector<int64_t> valid_block_sizes(int64_t cols) {
  std::vector<int64_t> sizes;
  for (int64_t d = 1; d <= std::min(cols, kLargestSuggestedBlock); ++d)
    if (cols % d == 0) sizes.push_back(d);
  return sizes;
}

/// Product quantization of a weight that its blocks divide, with as many of the asked for centroids as it has use for.
std::shared_ptr<const Quantizer> product_quantizer(const WeightInfo& weight, const KMeansShape& asked) {
  const int64_t blocks = weight.rows * weight.cols / asked.block_size;
  const int64_t capped = capped_centroids(blocks, asked.n_centroids);
  if (capped < asked.n_centroids)
    spdlog::info("weight '{}': {} centroids instead of {}, a quarter of its {} blocks of {}", weight.name, capped,
                 asked.n_centroids, blocks, asked.block_size);
  return std::make_shared<PqQuantizer>(asked.block_size, capped, asked.row_scales);
}

std::shared_ptr<const Quantizer> plan_quantizer(const QuantizeRules& rules, const WeightInfo& weight, bool row_scales) {
  if (rules.quantizer != nullptr) {
    rules.quantizer->check(weight.rows, weight.cols, weight.name);
    const auto kmeans = rules.quantizer->kmeans();
    return kmeans ? product_quantizer(weight, *kmeans) : rules.quantizer;
  }
  int64_t d = look_up(rules.block_sizes, "block_sizes", rules.source, weight);
  if (rules.fit_blocks) d = std::gcd(d, weight.cols);
  const int64_t k = look_up(rules.n_centroids, "n_centroids", rules.source, weight);
  QN_CHECK(d >= 1 && weight.cols % d == 0,
           "weight '{}' has {} columns, which a block size of {} does not divide; {} fit", weight.name, weight.cols, d,
           fmt::join(valid_block_sizes(weight.cols), ", "));
  QN_CHECK(k >= 2 && k <= 65536, "weight '{}': {} centroids; 2 to 65536 are allowed", weight.name, k);
  return product_quantizer(weight, {d, k, row_scales});
}

}  // namespace

const char* layer_type(WeightKind kind) {
  switch (kind) {
    case WeightKind::linear:
      return "Linear";
    case WeightKind::embedding:
      return "Embedding";
    case WeightKind::conv:
      return "Conv2d";
  }
  QN_ASSERT(false, "unknown weight kind");
}

QuantizeRules default_quantize_rules() {
  const std::string root = R"((encoder\.sentence_encoder|encoder|decoder)\.)";
  return {
      .n_centroids = {{"Linear", {"in_features", {{"*", 256}}}}, {"Embedding", {"embedding_dim", {{"*", 256}}}}},
      .block_sizes = {{"Linear", {"fuzzy_name", {{"fc", 8}, {"attn", 4}, {"emb", 4}, {"head", 4}}}},
                      {"Embedding", {"fuzzy_name", {{"emb", 8}}}}},
      .stages = {{root + R"(layers\.\d+\.fc[12])", ""},
                 {root + R"(embed_tokens(\.embeddings\.[012]\.[01]|$))", ""},
                 {root + R"(layers\.\d+\.(self|encoder)_attn\.(k_proj|v_proj|q_proj|out_proj))", ""}},
  };
}

QuantizeRules default_image_rules(std::span<const WeightInfo> weights) {
  QuantizeRules rules{
      .n_centroids = {{"Linear", {"in_features", {{"*", 256}}}}, {"Conv2d", {"kernel_size", {{"*", 256}}}}},
      .block_sizes = {{"Linear", {"in_features", {{"*", 4}}}},
                      {"Conv2d", {"kernel_size", {{"(1, 1)", 4}, {"(3, 3)", 9}, {"(5, 5)", 25}}}}},
      .stages = {},
      .fit_blocks = true};
  constexpr const char* kStages[] = {R"(blocks\.\d+\.\d+\.conv_pwl?$|conv_head$|layer\d+\.\d+\.conv[12]$)",
                                     R"(blocks\.\d+\.\d+\.conv_dw$)", R"(blocks\.\d+\.\d+\.se\.)",
                                     R"(classifier$|fc$)"};
  for (const char* pattern : kStages)
    if (const StageRule rule{pattern, ""}; !find_matches(NamePattern(rule.pattern, rule.where), weights).empty())
      rules.stages.push_back(rule);
  return rules;
}

std::vector<WeightPlan> QuantizationPlan::stage(int64_t stage) const {
  std::vector<WeightPlan> found;
  std::copy_if(weights.begin(), weights.end(), std::back_inserter(found),
               [&](const WeightPlan& w) { return w.stage == stage; });
  return found;
}

std::vector<WeightPlan> QuantizationPlan::quantized() const {
  std::vector<WeightPlan> found;
  for (int64_t s = 0; s < stages; ++s) {
    const std::vector<WeightPlan> of_stage = stage(s);
    found.insert(found.end(), of_stage.begin(), of_stage.end());
  }
  return found;
}

const WeightPlan* QuantizationPlan::find(const std::string& name) const {
  const auto it = std::find_if(weights.begin(), weights.end(), [&](const WeightPlan& w) { return w.name == name; });
  return it == weights.end() ? nullptr : &*it;
}

void QuantizationPlan::quantize(const std::string& name, int64_t stage, std::shared_ptr<const Quantizer> quantizer) {
  const auto it = std::find_if(weights.begin(), weights.end(), [&](const WeightPlan& w) { return w.name == name; });
  if (it == weights.end()) {
    std::vector<std::string> names;
    for (const WeightPlan& w : weights) names.push_back(w.name);
    fail("no weight is called '{}'; the nearest: {}", name, fmt::join(nearest(name, names), ", "));
  }
  QN_CHECK(stage >= 0 && stage <= stages, "'{}' cannot be quantized in stage {}: there are {} stages, so {} comes next",
           name, stage, stages, stages);
  quantizer->check(it->rows, it->cols, name);
  it->stage = stage;
  it->quantizer = std::move(quantizer);
  stages = std::max(stages, stage + 1);
}

std::string kernel_text(int64_t height, int64_t width) { return fmt::format("({}, {})", height, width); }

int64_t kernel_pixels(const Weight& weight) {
  return weight.kind() == WeightKind::conv ? weight.shape()[2] * weight.shape()[3] : 1;
}

std::vector<WeightInfo> infos_of(const WeightSet& weights) {
  std::vector<WeightInfo> infos;
  for (const auto& w : weights.all())
    infos.push_back({.name = w->name(),
                     .kind = w->kind(),
                     .rows = w->rows(),
                     .cols = w->cols(),
                     .kernel = kernel_pixels(*w),
                     .group = w->group(),
                     .aliases = weights.aliases_of(w.get()),
                     .attributes = own_attributes(*w)});
  return infos;
}

QuantizationPlan dense_plan(std::span<const WeightInfo> weights) {
  QuantizationPlan plan;
  for (const WeightInfo& w : weights)
    plan.weights.push_back({.name = w.name, .group = w.group, .rows = w.rows, .cols = w.cols, .kernel = w.kernel});
  return plan;
}

std::vector<size_t> select_weights(const StageRule& rule, std::span<const WeightInfo> weights) {
  std::vector<size_t> found = find_matches(NamePattern(rule.pattern, rule.where), weights);
  if (!found.empty()) return found;
  const std::string repaired = with_single_backslashes(rule.pattern);
  if (repaired != rule.pattern) found = find_matches(NamePattern(repaired, rule.where), weights);
  if (!found.empty()) {
    spdlog::warn("{}",
                 located(rule.where, fmt::format("pattern '{}' matches no weight because its backslashes are doubled "
                                                 "(YAML keeps them as they are outside double quotes); using '{}', "
                                                 "which matches {}. Write single backslashes.",
                                                 rule.pattern, repaired, found.size())));
    return found;
  }
  std::vector<std::string> names;
  for (const WeightInfo& weight : weights) {
    names.push_back(layer_name(weight.name));
    for (const std::string& alias : weight.aliases) names.push_back(layer_name(alias));
  }
  throw Error(located(rule.where, fmt::format("pattern '{}' matches no weight; the nearest names are: {}", rule.pattern,
                                              fmt::join(nearest(without_backslashes(repaired), names, 5), ", "))));
}

QuantizationPlan make_plan(const QuantizeRules& rules, std::span<const WeightInfo> weights) {
  QN_CHECK(!rules.stages.empty(), "{}", located(rules.source, "layers_to_quantize names no stage"));
  QuantizationPlan plan = dense_plan(weights);
  std::vector<bool> row_scales(weights.size(), false);
  for (const StageRule& rule : rules.row_scales)
    for (const size_t i : select_weights(rule, weights)) row_scales[i] = true;
  for (const StageRule& rule : rules.stages) {
    const int64_t stage = plan.stages++;
    bool any = false;
    for (const size_t i : select_weights(rule, weights)) {
      WeightPlan& planned = plan.weights[i];
      if (planned.stage >= 0) {
        spdlog::info("weight '{}' also fits stage {}; it stays in stage {}", planned.name, stage + 1,
                     planned.stage + 1);
        continue;
      }
      planned.stage = stage;
      planned.quantizer = plan_quantizer(rules, weights[i], row_scales[i]);
      any = true;
    }
    if (!any)
      throw Error(
          located(rule.where, fmt::format("every weight that pattern '{}' matches already belongs to an earlier "
                                          "stage; remove it or reorder the stages",
                                          rule.pattern)));
  }
  return plan;
}

void plan_cut_ties(QuantizationPlan& plan, const WeightSet& weights) {
  plan.cut_ties = true;
  for (const TiedUse& use : weights.ties()) {
    const WeightPlan* tied = plan.find((*use.place)->name());
    if (tied == nullptr || tied->stage < 0) continue;
    plan.weights.push_back(
        {.name = use.name, .group = use.group, .rows = tied->rows, .cols = tied->cols, .tied_to = tied->name});
  }
}

std::string describe(const QuantizationPlan& plan) {
  size_t name_width = 6;
  for (const WeightPlan& w : plan.quantized()) name_width = std::max(name_width, w.name.size());
  std::string text = fmt::format("{:<5} {:<{}} {:>8} {:>8}  {:<18} {:>14}\n", "stage", "weight", name_width, "rows",
                                 "cols", "quantizer", "bytes");
  for (int64_t s = 0; s < plan.stages; ++s) {
    SizeReport report;
    for (const WeightPlan& w : plan.stage(s)) {
      report.add_quantized(w.name, *w.quantizer, w.rows, w.cols, plan.storage.side);
      text += fmt::format("{:<5} {:<{}} {:>8} {:>8}  {:<18} {:>14}\n", w.stage + 1, w.name, name_width, w.rows, w.cols,
                          w.quantizer->text(), group_digits(static_cast<int64_t>(report.entries().back().bytes())));
    }
    text += fmt::format("      {} weights: {} instead of {} in float32\n", report.entries().size(),
                        format_bytes(report.total_bytes()), format_bytes(report.original_bytes()));
  }
  return text;
}

}  // namespace qn
