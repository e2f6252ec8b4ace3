#include "cli/config_options.h"

#include <algorithm>
#include <type_traits>

#include "cli/choice_option.h"

namespace qn::cli {
namespace {

/// Sets one key that is a choice: an enumeration is reached only while its struct is being visited.
class SetChoice : public ConfigVisitor {
 public:
  SetChoice(std::string key, std::string text) : key_(std::move(key)), text_(std::move(text)) {}

 protected:
  void on_field(const ConfigField& field) override {
    if (field.name == key_) *std::get<std::string*>(field.value) = text_;
  }
  void begin_section(std::string_view, std::string_view) override {}
  void end_section() override {}

 private:
  std::string key_, text_;
};

class AddOptions : public ConfigVisitor {
 public:
  AddOptions(CLI::App& app, const ConfigWalk& walk) : app_(app), walk_(walk) {}

 protected:
  void on_field(const ConfigField& field) override {
    const std::string key(field.name), doc(field.doc);
    std::string option = "--" + key;
    std::replace(option.begin(), option.end(), '_', '-');
    if (!field.choices.empty()) {
      add_choice_option(
          app_, option,
          [walk = walk_, key](const std::string& text) {
            SetChoice set(key, text);
            walk(set);
          },
          doc, field.choices)
          ->default_str(*std::get<std::string*>(field.value));
      return;
    }
    std::visit([&](auto* value) { add(option, *value, doc); }, field.value);
  }
  void begin_section(std::string_view name, std::string_view) override {
    QN_ASSERT(false, "options have no sections: {}", name);
  }
  void end_section() override {}

 private:
  void add(const std::string& option, bool& value, const std::string& doc) { app_.add_flag(option, value, doc); }
  template <class T>
  void add(const std::string& option, std::optional<T>& value, const std::string& doc) {
    app_.add_option(option, value, doc);
  }
  template <class T>
  void add(const std::string& option, T& value, const std::string& doc) {
    app_.add_option(option, value, doc)->capture_default_str();
  }

  CLI::App& app_;
  ConfigWalk walk_;
};

}  // namespace

void add_config_options(CLI::App& app, const ConfigWalk& walk) {
  AddOptions add(app, walk);
  walk(add);
}

}  // namespace qn::cli
