#include "compress/fairseq_config.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "compress/python_yaml.h"
#include "core/error.h"
#include "core/file_kind.h"
#include "core/log.h"
#include "core/text.h"

namespace qn {
namespace {

/// Whether a word is probably a slip for a known one.
bool is_typo(const std::string& word, const std::string& known) {
  return edit_distance(word, known) <= std::min<size_t>(3, known.size() / 3);
}

/// Walks the document with the names of file and keys at hand for messages.
class Reader {
 public:
  explicit Reader(std::string source) : source_(std::move(source)) {}

  std::string at(const PythonValue& value) const { return fmt::format("{}:{}", source_, value.line); }

  const std::string& text(const PythonValue& value, const std::string& key) const {
    QN_CHECK(value.type != PythonValue::Type::list && value.type != PythonValue::Type::dict, "{}: {} must be a text",
             at(value), key);
    QN_CHECK(value.is_text(), "{}: {} must be a text, but to YAML {} is {}; quote it: \"{}\"", at(value), key,
             value.text, value.type_name(), value.text);
    return value.text;
  }

  int64_t positive_integer(const PythonValue& value, const std::string& key) const {
    QN_CHECK(value.type == PythonValue::Type::integer && value.number && *value.number >= 1,
             "{}: {} must be a positive integer{}", at(value), key, value.is_text() ? " without quotes" : "");
    return *value.number;
  }

  void require_map(const PythonValue& value, const std::string& key) const {
    QN_CHECK(value.type == PythonValue::Type::dict, "{}: {} must be a map", at(value), key);
  }

  /// fairseq ignores keys that it does not know; one that looks like a known one is probably misspelt.
  void report_ignored(const PythonValue& key, std::span<const std::string> known, const std::string& what) const {
    if (std::find(known.begin(), known.end(), key.text) != known.end() && key.is_text()) return;
    const std::string likely = nearest(key.text, known).front();
    if (is_typo(key.text, likely))
      spdlog::warn("{}: {} '{}' is ignored, as in fairseq; did you mean '{}'?", at(key), what, key.text, likely);
    else
      spdlog::info("{}: {} '{}' is ignored, as in fairseq", at(key), what, key.text);
  }

  SizeRule size_rule(const PythonValue& node, const std::string& key) const {
    static const std::array<std::string, 2> kKeys{"key", "value"};
    require_map(node, key);
    const PythonValue *attribute = node.find("key"), *value = node.find("value");
    std::vector<std::string> keys;
    for (const auto& entry : node.entries) keys.push_back(entry.first->text);
    QN_CHECK(attribute != nullptr && value != nullptr, "{}: {} needs both 'key' and 'value'; it has {}", at(node), key,
             keys.empty() ? "nothing" : fmt::format("'{}'", fmt::join(keys, "', '")));
    for (const auto& entry : node.entries) report_ignored(*entry.first, kKeys, "key in " + key);
    SizeRule rule{text(*attribute, key + ".key"), {}};
    require_map(*value, key + ".value");
    for (const auto& [name, number] : value->entries) {
      const int64_t size = positive_integer(*number, key + ".value." + name->text);
      if (name->is_text())
        rule.values.emplace_back(name->text, size);
      else
        rule.other_keys.push_back({name->text, name->type_name(), at(*name)});
    }
    if (!rule.is_fuzzy())
      for (const SizeRule::OtherKey& other : rule.other_keys)
        spdlog::warn("{}: in {}.value the key {} is {} to YAML, which never equals the text of {}; quote it: \"{}\"",
                     other.where, key, other.text, other.type, rule.key, other.text);
    return rule;
  }

  std::map<std::string, SizeRule> size_rules(const PythonValue& node, const std::string& key) const {
    static const std::array<std::string, 3> kTypes{layer_type(WeightKind::linear), layer_type(WeightKind::embedding),
                                                   layer_type(WeightKind::conv)};
    std::map<std::string, SizeRule> rules;
    require_map(node, key);
    for (const auto& [type, rule] : node.entries) {
      report_ignored(*type, kTypes, "layer type in " + key);
      if (type->is_text()) rules[type->text] = size_rule(*rule, key + "." + type->text);
    }
    return rules;
  }

  std::vector<StageRule> stages(const PythonValue& node, const std::string& key) const {
    QN_CHECK(node.type == PythonValue::Type::list, "{}: {} must be a list of patterns", at(node), key);
    std::vector<StageRule> rules;
    for (const PythonValue* pattern : node.items)
      rules.push_back({text(*pattern, "a pattern in " + key), at(*pattern)});
    return rules;
  }

 private:
  std::string source_;
};

}  // namespace

QuantizeRules parse_quantize_rules(const std::string& text, const std::string& source,
                                   std::span<const std::string> own_sections) {
  static const std::array<std::string, 3> kSections{"n_centroids", "block_sizes", "layers_to_quantize"};
  const PythonYaml document(text, source);
  const PythonValue& root = document.root();
  QuantizeRules rules = default_quantize_rules();
  rules.source = source;
  if (root.type == PythonValue::Type::null) {
    spdlog::warn("{}: the file is empty, where fairseq fails; the built-in rules are used. Write {{}} for them.",
                 source);
    return rules;
  }
  const Reader reader(source);
  reader.require_map(root, "the file");
  for (const auto& entry : root.entries)
    if (std::find(own_sections.begin(), own_sections.end(), entry.first->text) == own_sections.end())
      reader.report_ignored(*entry.first, kSections, "section");
  if (const PythonValue* section = root.find(kSections[0]))
    rules.n_centroids = reader.size_rules(*section, kSections[0]);
  if (const PythonValue* section = root.find(kSections[1]))
    rules.block_sizes = reader.size_rules(*section, kSections[1]);
  if (const PythonValue* section = root.find(kSections[2])) rules.stages = reader.stages(*section, kSections[2]);
  return rules;
}

QuantizeRules read_quantize_rules(const std::filesystem::path& path) {
  return parse_quantize_rules(read_text_file(path), path.string());
}

}  // namespace qn
