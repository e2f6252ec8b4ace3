// What the parts of the configuration reader share: the parsed tree and the names of types. Include config.h instead.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/config.h"

namespace qn {

struct ConfigLocation {
  std::string source;  ///< file as the user named it, or "--set key=value"
  int line = 0;        ///< from 1; 0: the source as a whole
  std::string text() const { return line > 0 ? fmt::format("{}:{}", source, line) : source; }
};

struct ConfigNode {
  enum class Kind { null, scalar, list, map };
  explicit ConfigNode(Kind k = Kind::null, ConfigLocation location = {}) : kind(k), where(std::move(location)) {}

  Kind kind;
  ConfigLocation where;  ///< of the key for members of a map
  std::string key;       ///< name within the parent map
  std::string scalar;    ///< the text as written
  bool quoted = false;   ///< a quoted scalar is always text
  std::vector<ConfigNode> children;

  const ConfigNode* find(std::string_view name) const;
  ConfigNode* find(std::string_view name);
};

/// Follows a dotted key as far as the tree goes: the node itself, or the nearest enclosing one with `found` = false.
const ConfigNode& walk_config_nodes(const ConfigNode& root, std::string_view key, bool& found);

/// Lays `top` over `base`: maps merge key by key, anything else replaces. An empty section ("optimizer:" and nothing
/// below) changes nothing.
void merge_config_nodes(ConfigNode& base, ConfigNode top);

struct ConfigProblem {
  ConfigLocation where;
  std::string text;
};

struct ConfigTreeData {
  ConfigNode root;
  std::vector<ConfigProblem> problems;  ///< found while loading, reported by read_config
};

/// One YAML document. Lines are part of locations only if `in_file`; otherwise the source alone is the location. Throws
/// qn::Error on a syntax error (source:line:column); duplicate keys and unsupported YAML are noted in `problems`.
ConfigNode parse_yaml(const std::string& text, const std::string& source, bool in_file,
                      std::vector<ConfigProblem>& problems);

std::string join_config_key(std::string_view prefix, std::string_view name);

/// "integer", "list of numbers", "text or null", "one of nag, adam".
std::string config_type_name(const ConfigField& field);
/// The same with an article and an example: "an integer such as 8".
std::string config_type_example(const ConfigValue& value);

/// A text as a YAML scalar, quoted only where it would otherwise mean something else.
std::string yaml_text(std::string_view text);

}  // namespace qn
