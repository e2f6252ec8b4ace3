// Strict YAML configuration. A config is a plain struct with defaults and one `visit` method; that single list of keys
// serves reading, dumping and documenting:
//
//   struct NoiseConfig {
//     double pq = 0.0;
//     std::vector<std::string> groups = {"ffn"};
//     void visit(ConfigVisitor& v) {
//       v.field("pq", pq, "probability that a block of weights is dropped in a forward pass (0 = no noise)");
//       v.choice("groups", groups, {"ffn", "attn"}, "which weights are noised");
//     }
//     void validate(const ConfigChecker& c) const { c.check(pq >= 0 && pq < 1, "pq", "must be in [0, 1), got {}", pq);
//     }
//   };
#pragma once

#include <concepts>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/enum_names.h"
#include "core/error.h"

namespace qn {

/// Every type a key may have, as a pointer to the struct's member. `int` is range-checked; optionals accept null.
using ConfigValue =
    std::variant<bool*, int*, int64_t*, double*, std::string*, std::vector<int64_t>*, std::vector<double>*,
                 std::vector<std::string>*, std::optional<bool>*, std::optional<int>*, std::optional<int64_t>*,
                 std::optional<double>*, std::optional<std::string>*>;

/// One key of a config struct. The views live as long as the call they are passed to.
struct ConfigField {
  std::string_view name;
  ConfigValue value;
  std::string_view doc;
  std::vector<std::string> choices;  ///< allowed texts; empty: anything
};

/// Handed to `validate`: collects what is wrong with the values of one section.
class ConfigChecker {
 public:
  virtual ~ConfigChecker() = default;

  /// Records a problem unless `ok`. `key` is relative to the section ("" = the section itself) and may reach into a
  /// sub-section ("schedule.warmup"); the message continues the key's name: "must be positive, got {}".
  template <typename... Args>
  void check(bool ok, std::string_view key, fmt::format_string<Args...> format, Args&&... args) const {
    if (!ok) report(key, fmt::format(format, std::forward<Args>(args)...));
  }
  virtual void report(std::string_view key, const std::string& message) const = 0;
};

template <class S>
concept ValidatedConfig = requires(S& s, const ConfigChecker& c) {
  s.validate(c);
};

/// Walks a config struct. The templates only forward, so config structs compile fast.
class ConfigVisitor {
 public:
  virtual ~ConfigVisitor() = default;

  template <class T>
  requires std::constructible_from<ConfigValue, T*>
  void field(std::string_view name, T& value, std::string_view doc) { on_field({name, &value, doc, {}}); }
  /// An enumeration, written as the name of its value (see enum_names.h).
  template <NamedEnum E>
  void choice(std::string_view name, E& value, std::string_view doc) {
    choice(name, value, all_values<E>(), doc);
  }
  /// The same where only some values make sense; the default is one of them.
  template <NamedEnum E>
  void choice(std::string_view name, E& value, const std::vector<E>& choices, std::string_view doc) {
    std::string text = name_of(value);
    on_field({name, &text, doc, names_of(choices)});
    value = value_named<E>(text, name);
  }
  /// A list of texts out of `choices`.
  void choice(std::string_view name, std::vector<std::string>& value, std::vector<std::string> choices,
              std::string_view doc) {
    on_field({name, &value, doc, std::move(choices)});
  }
  /// A nested struct, visited and, where it has `validate`, validated.
  template <class S>
  void section(std::string_view name, S& sub, std::string_view doc) {
    begin_section(name, doc);
    visit_body(sub);
    end_section();
  }
  /// The keys of a struct without a section of its own.
  template <class S>
  void visit_body(S& config) {
    config.visit(*this);
    if constexpr (ValidatedConfig<S>) {
      if (const ConfigChecker* c = checker()) config.validate(*c);
    }
  }

 protected:
  virtual void on_field(const ConfigField& field) = 0;
  virtual void begin_section(std::string_view name, std::string_view doc) = 0;
  virtual void end_section() = 0;
  virtual const ConfigChecker* checker() { return nullptr; }  ///< null: do not validate
};

struct ConfigTreeData;

/// Parsed YAML in which every value remembers where it came from. Immutable; copies share.
class ConfigTree {
 public:
  ConfigTree();  ///< no keys: reading it gives the defaults
  explicit ConfigTree(std::shared_ptr<const ConfigTreeData> data) : data_(std::move(data)) {}

  /// Was this dotted key ("optimizer.lr") given, in a file or by --set?
  bool has(std::string_view key) const;
  /// Where it was given: "configs/x.yaml:12" or "--set optimizer.lr=1"; the nearest enclosing section when it was not.
  std::string location(std::string_view key) const;
  const ConfigTreeData& data() const { return *data_; }

 private:
  std::shared_ptr<const ConfigTreeData> data_;
};

/// Reads a YAML file. A top-level `inherits: other.yaml` (or a list; paths relative to the naming file) is loaded
/// first; maps merge key by key, scalars and lists replace, later wins. `overrides` are texts "a.b=c", c being YAML,
/// applied last. Throws qn::Error on a missing file, a circle of files or bad YAML (file:line:column). Duplicate keys
/// and malformed overrides are kept and reported by read_config together with everything else.
ConfigTree load_config_tree(const std::filesystem::path& path, const std::vector<std::string>& overrides = {});

/// The same for text, e.g. a config stored in a checkpoint; `name` stands for the file in messages. No `inherits`.
ConfigTree config_tree_from_text(std::string_view text, const std::string& name,
                                 const std::vector<std::string>& overrides = {});

using ConfigWalk = std::function<void(ConfigVisitor&)>;
void read_config_walk(const ConfigTree& tree, const ConfigWalk& walk);
std::string dump_config_walk(const ConfigWalk& walk);
std::string describe_config_walk(const ConfigWalk& walk);

/// Reads every key of `tree` into `config`, which supplies the defaults. Throws one qn::Error listing all problems, one
/// per line, each with file, line and full key: unknown keys (with the nearest valid one), wrong types, failed
/// validation, duplicate keys. `config` is unchanged when it throws.
template <class T>
void read_into(const ConfigTree& tree, T& config) {
  T copy = config;
  read_config_walk(tree, [&](ConfigVisitor& v) { v.visit_body(copy); });
  config = std::move(copy);
}

template <class T>
T read_config(const ConfigTree& tree) {
  T config{};
  read_into(tree, config);
  return config;
}

/// The complete config as YAML, in the order of `visit`; reads back to exactly the same values.
template <class T>
std::string dump_config(const T& config) {
  T copy = config;  // `visit` hands out mutable members
  return dump_config_walk([&](ConfigVisitor& v) { v.visit_body(copy); });
}

/// Documentation of every key: dotted name, default, type and meaning.
template <class T>
std::string describe_config() {
  T config{};
  return describe_config_walk([&](ConfigVisitor& v) { v.visit_body(config); });
}

/// Compares two dumped configs: one line "key: old -> new" for each key that differs.
std::vector<std::string> diff_config(std::string_view old_text, std::string_view new_text);

}  // namespace qn
