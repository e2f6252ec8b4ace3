// YAML as Python's PyYAML reads it (safe_load, YAML 1.1; version 6.0.3 and older), which is not what a YAML 1.2 reader
// makes of the same file.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace qn {

/// One value with the type that Python gives it.
struct PythonValue {
  enum class Type : uint8_t { null, boolean, integer, real, date, text, list, dict, other };
  using Entry = std::pair<const PythonValue*, const PythonValue*>;

  Type type = Type::null;
  std::string text = {};                       ///< a scalar as the file has it
  std::optional<int64_t> number = {};          ///< an integer that fits
  std::vector<const PythonValue*> items = {};  ///< of a list
  /// Of a dict, in Python's order: merged entries (`<<`) come first; a key that comes again keeps its place and gets
  /// the later value.
  std::vector<Entry> entries = {};
  int64_t line = 0;  ///< from 1

  bool is_text() const { return type == Type::text; }
  const PythonValue* find(std::string_view text_key) const;  ///< nullptr when a dict has no such key
  const char* type_name() const;                             ///< "an integer"
};

class PythonYaml {
 public:
  /// Reads a document; `source` names it in messages. Throws qn::Error with the line for what is not YAML and for what
  /// PyYAML refuses: a second document, an anchor defined twice, unknown tags, lists or maps as keys, `<<` with
  /// anything but maps.
  PythonYaml(const std::string& text, const std::string& source);

  const PythonValue& root() const { return *root_; }  ///< null for an empty text

 private:
  std::deque<PythonValue> values_;  ///< what the pointers point to
  const PythonValue* root_ = nullptr;
};

}  // namespace qn
