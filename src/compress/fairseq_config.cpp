#include "compress/fairseq_config.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>

#include "core/error.h"
#include "core/file_io.h"
#include "core/text.h"

namespace qn {
namespace {

/// Walks the YAML tree with the place of the current node at hand for messages.
class Reader {
 public:
  explicit Reader(std::string source) : source_(std::move(source)) {}

  std::string at(const YAML::Node& node) const {
    return node.Mark().is_null() ? source_ : fmt::format("{}:{}", source_, node.Mark().line + 1);
  }

  std::string text(const YAML::Node& node, const std::string& key) const {
    QN_CHECK(node.IsScalar(), "{}: {} must be a text", at(node), key);
    return node.Scalar();
  }

  int64_t positive_integer(const YAML::Node& node, const std::string& key) const {
    int64_t value = 0;
    QN_CHECK(node.IsScalar() && YAML::convert<int64_t>::decode(node, value) && value >= 1,
             "{}: {} must be a positive integer", at(node), key);
    return value;
  }

  void require_map(const YAML::Node& node, const std::string& key) const {
    QN_CHECK(node.IsMap(), "{}: {} must be a map", at(node), key);
  }

  void require_known(const YAML::Node& name, std::span<const std::string> known, const std::string& what) const {
    const std::string word = text(name, what);
    QN_CHECK(std::find(known.begin(), known.end(), word) != known.end(), "{}: unknown {} '{}'; did you mean '{}'?",
             at(name), what, word, nearest(word, known).front());
  }

  SizeRule size_rule(const YAML::Node& node, const std::string& key) const {
    static const std::array<std::string, 2> kKeys{"key", "value"};
    require_map(node, key);
    for (const auto& member : node) require_known(member.first, kKeys, "key in " + key);
    QN_CHECK(node["key"] && node["value"], "{}: {} needs both 'key' and 'value'", at(node), key);
    SizeRule rule{text(node["key"], key + ".key"), {}};
    require_map(node["value"], key + ".value");
    for (const auto& entry : node["value"]) {
      const std::string name = text(entry.first, "a key in " + key + ".value");
      rule.values.emplace_back(name, positive_integer(entry.second, key + ".value." + name));
    }
    return rule;
  }

  std::map<std::string, SizeRule> size_rules(const YAML::Node& node, const std::string& key) const {
    static const std::array<std::string, 3> kTypes{layer_type(WeightKind::linear), layer_type(WeightKind::embedding),
                                                   layer_type(WeightKind::conv)};
    std::map<std::string, SizeRule> rules;
    require_map(node, key);
    for (const auto& entry : node) {
      require_known(entry.first, kTypes, "layer type in " + key);
      const std::string type = entry.first.Scalar();
      rules[type] = size_rule(entry.second, key + "." + type);
    }
    return rules;
  }

  std::vector<StageRule> stages(const YAML::Node& node, const std::string& key) const {
    QN_CHECK(node.IsSequence(), "{}: {} must be a list of patterns", at(node), key);
    std::vector<StageRule> rules;
    for (const auto& pattern : node) rules.push_back({text(pattern, "a pattern in " + key), at(pattern)});
    return rules;
  }

 private:
  std::string source_;
};

YAML::Node load(const std::string& text, const std::string& source) {
  try {
    return YAML::Load(text);
  } catch (const YAML::ParserException& error) {
    fail("{}:{}: not valid YAML: {}", source, error.mark.line + 1, error.msg);
  }
}

}  // namespace

QuantizeRules parse_quantize_rules(const std::string& text, const std::string& source) {
  static const std::array<std::string, 3> kSections{"n_centroids", "block_sizes", "layers_to_quantize"};
  const YAML::Node root = load(text, source);
  QuantizeRules rules = default_quantize_rules();
  rules.source = source;
  if (root.IsNull()) return rules;
  const Reader reader(source);
  reader.require_map(root, "the file");
  for (const auto& section : root) {
    reader.require_known(section.first, kSections, "section");
    const std::string name = section.first.Scalar();
    if (name == "n_centroids") rules.n_centroids = reader.size_rules(section.second, name);
    if (name == "block_sizes") rules.block_sizes = reader.size_rules(section.second, name);
    if (name == "layers_to_quantize") rules.stages = reader.stages(section.second, name);
  }
  return rules;
}

QuantizeRules read_quantize_rules(const std::filesystem::path& path) {
  const std::vector<std::byte> bytes = read_file_bytes(path);
  return parse_quantize_rules({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string());
}

}  // namespace qn
