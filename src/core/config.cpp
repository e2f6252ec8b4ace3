#include "core/config.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "core/config_node.h"

namespace qn {
namespace {

struct TypeText {
  const char* name;
  const char* example;
};

template <class T>
constexpr TypeText kTypeText{};
template <>
constexpr TypeText kTypeText<bool>{"true or false", "true or false"};
template <>
constexpr TypeText kTypeText<int>{"integer", "an integer such as 8"};
template <>
constexpr TypeText kTypeText<int64_t>{"integer", "an integer such as 8"};
template <>
constexpr TypeText kTypeText<double>{"number", "a number such as 0.5"};
template <>
constexpr TypeText kTypeText<std::string>{"text", "a text such as \"abc\""};
template <>
constexpr TypeText kTypeText<std::vector<int64_t>>{"list of integers", "a list of integers such as [1, 2, 3]"};
template <>
constexpr TypeText kTypeText<std::vector<double>>{"list of numbers", "a list of numbers such as [0.5, 1.0]"};
template <>
constexpr TypeText kTypeText<std::vector<std::string>>{"list of texts", "a list of texts such as [abc, def]"};

template <class T>
constexpr bool kIsOptional = false;
template <class T>
constexpr bool kIsOptional<std::optional<T>> = true;

/// One of the two texts for the type behind `value`, with " or null" for optionals.
std::string type_text(const ConfigValue& value, const char* TypeText::*which) {
  return std::visit(
      [&]<class T>(const T*) -> std::string {
        if constexpr (kIsOptional<T>) {
          return fmt::format("{} or null", kTypeText<typename T::value_type>.*which);
        } else {
          return kTypeText<T>.*which;
        }
      },
      value);
}

}  // namespace

const ConfigNode* ConfigNode::find(std::string_view name) const {
  if (kind != Kind::map) return nullptr;
  const auto it = std::find_if(children.begin(), children.end(), [&](const ConfigNode& c) { return c.key == name; });
  return it == children.end() ? nullptr : &*it;
}

ConfigNode* ConfigNode::find(std::string_view name) {
  return const_cast<ConfigNode*>(static_cast<const ConfigNode*>(this)->find(name));
}

const ConfigNode& walk_config_nodes(const ConfigNode& root, std::string_view key, bool& found) {
  const ConfigNode* node = &root;
  found = true;
  while (found && !key.empty()) {
    const size_t dot = std::min(key.find('.'), key.size());
    const ConfigNode* next = node->find(key.substr(0, dot));
    found = next != nullptr;
    if (found) node = next;
    key.remove_prefix(std::min(dot + 1, key.size()));
  }
  return *node;
}

void merge_config_nodes(ConfigNode& base, ConfigNode top) {
  if (base.kind == ConfigNode::Kind::map && top.kind == ConfigNode::Kind::null) return;
  if (base.kind != ConfigNode::Kind::map || top.kind != ConfigNode::Kind::map) {
    base = std::move(top);
    return;
  }
  if (top.where.line > 0) base.where = top.where;  // a section stays where a file wrote it, --set only fills it
  for (ConfigNode& child : top.children) {
    if (ConfigNode* existing = base.find(child.key)) {
      merge_config_nodes(*existing, std::move(child));
    } else {
      base.children.push_back(std::move(child));
    }
  }
}

std::string join_config_key(std::string_view prefix, std::string_view name) {
  if (prefix.empty() || name.empty()) return std::string(prefix.empty() ? name : prefix);
  return fmt::format("{}.{}", prefix, name);
}

std::string config_type_name(const ConfigField& field) {
  const std::string name = type_text(field.value, &TypeText::name);
  if (field.choices.empty()) return name;
  if (std::holds_alternative<std::string*>(field.value))
    return fmt::format("one of {}", fmt::join(field.choices, ", "));
  return fmt::format("{}, out of {}", name, fmt::join(field.choices, ", "));
}

std::string config_type_example(const ConfigValue& value) { return type_text(value, &TypeText::example); }

ConfigTree::ConfigTree() {
  auto empty = std::make_shared<ConfigTreeData>();
  empty->root.kind = ConfigNode::Kind::map;
  empty->root.where.source = "config";
  data_ = std::move(empty);
}

bool ConfigTree::has(std::string_view key) const {
  bool found = false;
  walk_config_nodes(data_->root, key, found);
  return found;
}

std::string ConfigTree::location(std::string_view key) const {
  bool found = false;
  return walk_config_nodes(data_->root, key, found).where.text();
}

}  // namespace qn
