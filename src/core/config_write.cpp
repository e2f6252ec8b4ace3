// Structs to text: the resolved YAML, the key reference and the difference between two configs.
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <map>

#include "core/config_node.h"
#include "core/number_text.h"

namespace qn {
namespace {

constexpr size_t kLineWidth = 100;

std::string yaml_value(bool value) { return value ? "true" : "false"; }
std::string yaml_value(int value) { return std::to_string(value); }
std::string yaml_value(int64_t value) { return std::to_string(value); }
std::string yaml_value(const std::string& value) { return yaml_text(value); }

/// The shortest text that reads back to the same double, recognisable as a number with a fraction, also by readers of
/// YAML 1.1, to whom 1e-08 is a text.
std::string yaml_value(double value) {
  if (std::isnan(value)) return ".nan";
  if (std::isinf(value)) return value > 0 ? ".inf" : "-.inf";
  return number_with_fraction(fmt::format("{}", value));
}

template <class T>
std::string yaml_value(const std::optional<T>& value) {
  return value ? yaml_value(*value) : "null";
}

template <class T>
std::vector<std::string> yaml_items(const std::vector<T>& values) {
  std::vector<std::string> items;
  for (const T& v : values) items.push_back(yaml_value(v));
  return items;
}

template <class T>
std::string yaml_value(const std::vector<T>& values) {
  return fmt::format("[{}]", fmt::join(yaml_items(values), ", "));
}

std::string yaml_value(const ConfigValue& value) {
  return std::visit([](const auto* v) { return yaml_value(*v); }, value);
}

/// May this text stand in YAML without quotes and still be read as text? Conservative: a word or a path.
bool is_plain_text(std::string_view text) {
  constexpr std::array<std::string_view, 9> kOther = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"};
  auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '/'; };
  auto is_inner = [&](char c) {
    return is_letter(c) || (c >= '0' && c <= '9') || std::string_view("-.+=^$@").find(c) != std::string_view::npos;
  };
  std::string lower(text);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return !text.empty() && is_letter(text[0]) && std::all_of(text.begin(), text.end(), is_inner) &&
         std::find(kOther.begin(), kOther.end(), lower) == kOther.end();
}

class DumpVisitor final : public ConfigVisitor {
 public:
  std::string take() { return text_.empty() ? "{}\n" : std::move(text_); }

 protected:
  void on_field(const ConfigField& field) override {
    const std::string line = fmt::format("{}{}: {}\n", indent_, field.name, yaml_value(field.value));
    const auto* list = std::get_if<std::vector<std::string>*>(&field.value);
    if (line.size() <= kLineWidth || list == nullptr || (*list)->empty()) {
      text_ += line;
      return;
    }
    text_ += fmt::format("{}{}:\n", indent_, field.name);
    for (const std::string& item : yaml_items(**list)) text_ += fmt::format("{}  - {}\n", indent_, item);
  }
  void begin_section(std::string_view name, std::string_view) override {
    text_ += fmt::format("{}{}:\n", indent_, name);
    body_starts_.push_back(text_.size());
    indent_ += "  ";
  }
  void end_section() override {
    if (text_.size() == body_starts_.back()) text_.insert(text_.size() - 1, " {}");
    body_starts_.pop_back();
    indent_.resize(indent_.size() - 2);
  }

 private:
  std::string text_, indent_;
  std::vector<size_t> body_starts_;
};

/// Breaks at spaces so that lines stay below kLineWidth where words allow it; every line is indented.
std::string wrap(std::string_view text, std::string_view indent) {
  std::string result;
  size_t column = 0;
  while (!text.empty()) {
    const size_t space = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, space);
    text.remove_prefix(std::min(space + 1, text.size()));
    if (column > 0 && column + 1 + word.size() <= kLineWidth) {
      result += ' ';
      column += 1 + word.size();
    } else {
      if (column > 0) result += '\n';
      result += indent;
      column = indent.size() + word.size();
    }
    result += word;
  }
  return result + "\n";
}

class DescribeVisitor final : public ConfigVisitor {
 public:
  std::string take() { return text_.starts_with('\n') ? text_.substr(1) : text_; }

 protected:
  void on_field(const ConfigField& field) override {
    text_ += fmt::format("{} = {}  ({})\n", join_config_key(prefixes_.back(), field.name), yaml_value(field.value),
                         config_type_name(field));
    if (!field.doc.empty()) text_ += wrap(field.doc, "    ");
  }
  void begin_section(std::string_view name, std::string_view doc) override {
    prefixes_.push_back(join_config_key(prefixes_.back(), name));
    text_ += fmt::format("\n# {}{}{}\n", prefixes_.back(), doc.empty() ? "" : ": ", doc);
  }
  void end_section() override { prefixes_.pop_back(); }

 private:
  std::string text_;
  std::vector<std::string> prefixes_ = {""};
};

std::string node_text(const ConfigNode& node) {
  switch (node.kind) {
    case ConfigNode::Kind::null:
      return "null";
    case ConfigNode::Kind::scalar:
      return node.quoted ? yaml_text(node.scalar) : node.scalar;
    case ConfigNode::Kind::list:
    case ConfigNode::Kind::map:
      break;
  }
  std::vector<std::string> items;
  for (const ConfigNode& child : node.children) items.push_back(node_text(child));
  return fmt::format("[{}]", fmt::join(items, ", "));
}

/// Full key and value text of every leaf, in file order.
void flatten(const ConfigNode& node, const std::string& key, std::vector<std::pair<std::string, std::string>>& leaves) {
  if (node.kind != ConfigNode::Kind::map) {
    leaves.emplace_back(key, node_text(node));
    return;
  }
  for (const ConfigNode& child : node.children) flatten(child, join_config_key(key, child.key), leaves);
}

}  // namespace

std::string yaml_text(std::string_view text) {
  if (is_plain_text(text)) return std::string(text);
  std::string quoted = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (c == '\n') {
      quoted += "\\n";
    } else if (c == '\t') {
      quoted += "\\t";
    } else if (byte < 0x20 || byte == 0x7f) {
      quoted += fmt::format("\\x{:02x}", byte);
    } else {
      quoted += c;
    }
  }
  return quoted + "\"";
}

std::string dump_config_walk(const ConfigWalk& walk) {
  DumpVisitor visitor;
  walk(visitor);
  return visitor.take();
}

std::string describe_config_walk(const ConfigWalk& walk) {
  DescribeVisitor visitor;
  walk(visitor);
  return visitor.take();
}

bool same_config_value(const std::string& a, const std::string& b) {
  if (a == b) return true;
  const auto number = [](const std::string& text) {
    double value = std::nan("");
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc() && end == text.data() + text.size() ? value : std::nan("");
  };
  return number(a) == number(b);
}

std::vector<std::pair<std::string, std::string>> config_values(std::string_view text) {
  std::vector<std::pair<std::string, std::string>> leaves;
  flatten(config_tree_from_text(text, "the configuration").data().root, "", leaves);
  return leaves;
}

std::vector<std::string> diff_config(std::string_view old_text, std::string_view new_text) {
  std::vector<std::pair<std::string, std::string>> old_leaves, new_leaves;
  flatten(config_tree_from_text(old_text, "the old config").data().root, "", old_leaves);
  flatten(config_tree_from_text(new_text, "the new config").data().root, "", new_leaves);
  const std::map<std::string, std::string> old_map(old_leaves.begin(), old_leaves.end());
  const std::map<std::string, std::string> new_map(new_leaves.begin(), new_leaves.end());
  std::vector<std::string> lines;
  for (const auto& [key, value] : old_leaves) {
    const auto it = new_map.find(key);
    if (it == new_map.end()) {
      lines.push_back(fmt::format("{}: {} -> (not set)", key, value));
    } else if (!same_config_value(it->second, value)) {
      lines.push_back(fmt::format("{}: {} -> {}", key, value, it->second));
    }
  }
  for (const auto& [key, value] : new_leaves) {
    if (!old_map.contains(key)) lines.push_back(fmt::format("{}: (not set) -> {}", key, value));
  }
  return lines;
}

}  // namespace qn
