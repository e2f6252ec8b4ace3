// ConfigNode to structs: types, unknown keys, validation; every problem is collected before one error is thrown.
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <set>
#include <tuple>

#include "core/config_node.h"
#include "core/text.h"

namespace qn {
namespace {

using Kind = ConfigNode::Kind;
enum class Parsed { ok, wrong_type, out_of_range, ambiguous };

/// "010" is 8 to readers of YAML 1.1 and 10 to those of YAML 1.2 (and to people).
bool has_leading_zero(std::string_view text) {
  text.remove_prefix(text.starts_with('+') || text.starts_with('-') ? 1 : 0);
  return text.size() > 1 && text[0] == '0' && text[1] >= '0' && text[1] <= '9';
}

template <class T>
Parsed parse_number(std::string_view text, T& out) {
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (end != text.data() + text.size() || text.empty()) return Parsed::wrong_type;
  if (has_leading_zero(text)) return Parsed::ambiguous;
  if (error == std::errc::result_out_of_range) return Parsed::out_of_range;
  if (error != std::errc{}) return Parsed::wrong_type;
  out = value;
  return Parsed::ok;
}

bool one_of(std::string_view text, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), text) != words.end();
}

bool is_plain(const ConfigNode& node) { return node.kind == Kind::scalar && !node.quoted; }

// The scalar forms of YAML 1.2's core schema.
Parsed parse(const ConfigNode& node, bool& out) {
  if (!is_plain(node)) return Parsed::wrong_type;
  const bool yes = one_of(node.scalar, {"true", "True", "TRUE"});
  if (!yes && !one_of(node.scalar, {"false", "False", "FALSE"})) return Parsed::wrong_type;
  out = yes;
  return Parsed::ok;
}

template <class T>
requires std::same_as<T, int> || std::same_as<T, int64_t> Parsed parse(const ConfigNode& node, T& out) {
  return is_plain(node) ? parse_number(node.scalar, out) : Parsed::wrong_type;
}

Parsed parse(const ConfigNode& node, double& out) {
  if (!is_plain(node)) return Parsed::wrong_type;
  const std::string& text = node.scalar;
  constexpr double kInf = std::numeric_limits<double>::infinity();
  if (one_of(text, {".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"})) return out = kInf, Parsed::ok;
  if (one_of(text, {"-.inf", "-.Inf", "-.INF"})) return out = -kInf, Parsed::ok;
  if (one_of(text, {".nan", ".NaN", ".NAN"})) return Parsed::wrong_type;  // no key can use it
  // from_chars would also take the words "inf" and "nan", which are texts in YAML.
  if (text.find_first_not_of("+-.0123456789eE") != std::string::npos) return Parsed::wrong_type;
  return parse_number(text, out);
}

/// What to write for a number that other programs would take, where `out` must be a whole one.
template <class T>
std::string hint(const ConfigNode& node, const T&) {
  double value = 0.0;
  if constexpr (std::is_same_v<T, int> || std::is_same_v<T, int64_t>)
    if (parse(node, value) == Parsed::ok) return "; write whole numbers with digits only";
  if constexpr (std::is_same_v<T, int> || std::is_same_v<T, int64_t> || std::is_same_v<T, double>)
    if (is_plain(node) && !node.scalar.empty() &&
        node.scalar.find_first_not_of("+-.0123456789eExXabcdfABCDF_") == std::string::npos &&
        node.scalar.find_first_of("0123456789") != std::string::npos)
      return "; numbers are decimal, without '_'";
  return "";
}

Parsed parse(const ConfigNode& node, std::string& out) {
  if (node.kind != Kind::scalar) return Parsed::wrong_type;
  out = node.scalar;
  return Parsed::ok;
}

/// What the user wrote, for "got ...".
std::string got(const ConfigNode& node) {
  constexpr size_t kLongest = 60;
  switch (node.kind) {
    case Kind::null:
      return "nothing (null)";
    case Kind::list:
      return "a list";
    case Kind::map:
      return "a section with keys of its own";
    case Kind::scalar:
      break;
  }
  const std::string text = node.scalar.size() > kLongest ? node.scalar.substr(0, kLongest) + "..." : node.scalar;
  return node.quoted ? fmt::format("the quoted text \"{}\"", text) : fmt::format("'{}'", text);
}

class ReadVisitor final : public ConfigVisitor {
 public:
  explicit ReadVisitor(const ConfigTree& tree) : tree_(tree), problems_(tree.data().problems), checker_(*this) {
    stack_.push_back({"", &tree.data().root, {}});
  }

  /// Throws when anything was wrong.
  void finish() {
    close_frame();
    for (const Unknown& unknown : unknown_) problems_.push_back({unknown.where, unknown_key_text(unknown)});
    if (problems_.empty()) return;
    auto order = [](const ConfigProblem& p) { return std::tie(p.where.source, p.where.line); };
    std::stable_sort(problems_.begin(), problems_.end(),
                     [&](const ConfigProblem& a, const ConfigProblem& b) { return order(a) < order(b); });
    std::vector<std::string> lines;
    for (const ConfigProblem& p : problems_) lines.push_back(fmt::format("{}: {}", p.where.text(), p.text));
    // A file inherited along two ways reports its problems twice.
    lines.erase(std::unique(lines.begin(), lines.end()), lines.end());
    throw UsageError(fmt::format("{}", fmt::join(lines, "\n")));
  }

 protected:
  void on_field(const ConfigField& field) override {
    const std::string key = declare(field.name);
    const Frame& frame = stack_.back();
    const ConfigNode* node = frame.node == nullptr ? nullptr : frame.node->find(field.name);
    if (node == nullptr) return;
    std::visit([&](auto* out) { read(*node, key, field, *out); }, field.value);
  }

  void begin_section(std::string_view name, std::string_view) override {
    std::string key = declare(name);
    const ConfigNode* parent = stack_.back().node;
    const ConfigNode* node = parent == nullptr ? nullptr : parent->find(name);
    if (node != nullptr && node->kind != Kind::map && node->kind != Kind::null) {
      add_problem(*node, key,
                  fmt::format("is a section: write '{}:' and its keys, indented, below it; got {}", name, got(*node)));
      node = nullptr;
    }
    stack_.push_back({std::move(key), node, {}});
  }

  void end_section() override {
    close_frame();
    stack_.pop_back();
  }

  const ConfigChecker* checker() override { return &checker_; }

 private:
  struct Frame {
    std::string prefix;
    const ConfigNode* node;  // null: the section is not in the tree
    std::vector<std::string> known;
  };
  struct Unknown {
    ConfigLocation where;
    std::string prefix, name;
    std::vector<std::string> siblings;
  };
  struct ValidKey {
    std::string prefix, name;
  };
  class Checker final : public ConfigChecker {
   public:
    explicit Checker(ReadVisitor& reader) : reader_(reader) {}
    void report(std::string_view key, const std::string& message) const override { reader_.invalid(key, message); }

   private:
    ReadVisitor& reader_;
  };

  /// Notes a valid key of the current section; returns its full name.
  std::string declare(std::string_view name) {
    Frame& frame = stack_.back();
    QN_ASSERT(std::find(frame.known.begin(), frame.known.end(), name) == frame.known.end(),
              "config key '{}' is visited twice", join_config_key(frame.prefix, name));
    frame.known.emplace_back(name);
    valid_.push_back({frame.prefix, std::string(name)});
    return join_config_key(frame.prefix, name);
  }

  void add_problem(const ConfigNode& node, const std::string& key, const std::string& text) {
    problems_.push_back({node.where, fmt::format("'{}' {}", key, text)});
    failed_.insert(key);
  }

  /// A failed validation. Keys that could not even be read have said so already.
  void invalid(std::string_view relative_key, const std::string& message) {
    const std::string key = join_config_key(stack_.back().prefix, relative_key);
    if (failed_.contains(key)) return;
    bool given = false;
    const ConfigNode& node = walk_config_nodes(tree_.data().root, key, given);
    const char* note = given ? "" : " (not given, so the default)";
    problems_.push_back({node.where, key.empty() ? message : fmt::format("'{}' {}{}", key, message, note)});
  }

  /// Reads a scalar; false after noting a problem. `out` is then unchanged.
  template <class T>
  bool read(const ConfigNode& node, const std::string& key, const ConfigField& field, T& out) {
    T value{};
    const Parsed result = parse(node, value);
    if (result == Parsed::out_of_range) {
      add_problem(node, key, fmt::format("is out of range: got {}", got(node)));
    } else if (result == Parsed::wrong_type) {
      add_problem(node, key,
                  fmt::format("expects {}, got {}{}", config_type_example(&out), got(node), hint(node, value)));
    } else if (result == Parsed::ambiguous) {
      add_problem(node, key,
                  fmt::format("is ambiguous: {} is octal to some readers of YAML and decimal to others; write it "
                              "without the leading zero",
                              got(node)));
    }
    if (result != Parsed::ok || !allowed(node, key, field)) return false;
    out = std::move(value);
    return true;
  }

  template <class T>
  bool read(const ConfigNode& node, const std::string& key, const ConfigField& field, std::optional<T>& out) {
    if (node.kind == Kind::null) {
      out.reset();
      return true;
    }
    T value{};
    if (!read(node, key, field, value)) return false;
    out = std::move(value);
    return true;
  }

  template <class T>
  bool read(const ConfigNode& node, const std::string& key, const ConfigField& field, std::vector<T>& out) {
    if (node.kind != Kind::list) {
      add_problem(node, key, fmt::format("expects {}, got {}", config_type_example(&out), got(node)));
      return false;
    }
    std::vector<T> values(node.children.size());
    bool ok = true;
    for (size_t i = 0; i < values.size(); ++i) {
      ok = read(node.children[i], fmt::format("{}[{}]", key, i), field, values[i]) && ok;
    }
    if (ok) {
      out = std::move(values);
    } else {
      failed_.insert(key);
    }
    return ok;
  }

  /// Checks a text against the field's choices.
  bool allowed(const ConfigNode& node, const std::string& key, const ConfigField& field) {
    const auto& choices = field.choices;
    if (choices.empty() || std::find(choices.begin(), choices.end(), node.scalar) != choices.end()) return true;
    add_problem(node, key, wrong_choice(node.scalar, got(node), choices));
    return false;
  }

  /// The section is complete: what it holds beyond its known keys is unknown.
  void close_frame() {
    const Frame& frame = stack_.back();
    if (frame.node == nullptr) return;
    for (const ConfigNode& child : frame.node->children) {
      if (std::find(frame.known.begin(), frame.known.end(), child.key) == frame.known.end()) {
        unknown_.push_back({child.where, frame.prefix, child.key, frame.known});
      }
    }
  }

  /// The message with the nearest valid key: siblings first, but a key put into the wrong section is found as well.
  std::string unknown_key_text(const Unknown& unknown) const {
    const std::string full = join_config_key(unknown.prefix, unknown.name);
    if (const size_t dot = unknown.name.find('.'); dot != std::string::npos) {
      return fmt::format("unknown key '{}'; in a file, write '{}:' and, indented below it, '{}:'", full,
                         unknown.name.substr(0, dot), unknown.name.substr(dot + 1));
    }
    size_t best_cost = std::numeric_limits<size_t>::max();
    std::string best;
    for (const ValidKey& key : valid_) {
      const size_t distance = edit_distance(unknown.name, key.name);
      const size_t cost = 2 * distance + (key.prefix == unknown.prefix ? 0 : 1);
      const bool similar = distance <= std::max<size_t>(2, unknown.name.size() / 3) && distance < unknown.name.size();
      if (similar && cost < best_cost) {
        best_cost = cost;
        best = join_config_key(key.prefix, key.name);
      }
    }
    if (!best.empty()) return fmt::format("unknown key '{}'; did you mean '{}'?", full, best);
    constexpr size_t kListed = 12;
    if (unknown.siblings.empty()) return fmt::format("unknown key '{}'; this section has no keys", full);
    return fmt::format("unknown key '{}'; valid keys here, nearest first: {}{}", full,
                       fmt::join(nearest(unknown.name, unknown.siblings, kListed), ", "),
                       unknown.siblings.size() > kListed ? ", ..." : "");
  }

  const ConfigTree& tree_;
  std::vector<ConfigProblem> problems_;
  Checker checker_;
  std::vector<Frame> stack_;
  std::vector<ValidKey> valid_;
  std::vector<Unknown> unknown_;
  std::set<std::string> failed_;  // full keys that could not be read
};

}  // namespace

void read_config_walk(const ConfigTree& tree, const ConfigWalk& walk) {
  ReadVisitor reader(tree);
  walk(reader);
  reader.finish();
}

}  // namespace qn
