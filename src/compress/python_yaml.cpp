#include "compress/python_yaml.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <map>
#include <set>
#include <sstream>

#include "compress/python_yaml_scalar.h"
#include "core/error.h"
#include "core/log.h"

namespace qn {
namespace {

using Type = PythonValue::Type;

constexpr std::string_view kTags = "tag:yaml.org,2002:";

/// What the events tell of a value beyond what the value itself keeps.
struct Raw {
  bool is_merge_key = false;
  bool is_value_key = false;  ///< a plain "=", which PyYAML takes as a key only
  bool merged = false;        ///< its merge keys are resolved
  std::vector<PythonValue*> children = {};
};

/// Builds the values from yaml-cpp's events, then resolves merges and duplicates from the leaves up.
class Composer final : public YAML::EventHandler {
 public:
  Composer(const std::string& text, const std::string& source, std::deque<PythonValue>& values)
      : text_(text), source_(source), values_(values) {}

  PythonValue* root() const { return root_; }

  void OnDocumentStart(const YAML::Mark& mark) override {
    QN_CHECK(!started_, "{}: a second YAML document begins here; fairseq reads files of one document", at(mark));
    started_ = true;
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    PythonValue& value = add(mark, anchor);
    value.text = "null";
    place(value);
  }
  void OnAlias(const YAML::Mark&, YAML::anchor_t anchor) override { place(*anchors_.at(anchor)); }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& text) override {
    PythonValue& value = add(mark, anchor);
    value.text = text;
    const bool plain = tag == "?" || (tag == "!" && has_lone_tag(mark));
    Raw& raw = raw_[&value];
    raw.is_merge_key = (plain && text == "<<") || tag == std::string(kTags) + "merge";
    raw.is_value_key = (plain && text == "=") || tag == std::string(kTags) + "value";
    value.type = plain ? python_type(text) : tag == "!" ? Type::text : scalar_type(tag, value);
    if (value.type == Type::integer) value.number = python_integer(text);
    place(value);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, anchor, tag, "seq", Type::list);
  }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, anchor, tag, "map", Type::dict);
  }
  void OnSequenceEnd() override { open_.pop_back(); }
  void OnMapEnd() override { open_.pop_back(); }
  void OnAnchor(const YAML::Mark& mark, const std::string& name) override {
    QN_CHECK(anchor_names_.insert(name).second, "{}: anchor '&{}' is defined twice; give one another name", at(mark),
             name);
  }

  /// Lists and dicts from what was read.
  void construct() {
    for (PythonValue& value : values_) {
      if (value.type == Type::dict) construct_dict(value);
      if (value.type != Type::list) continue;
      for (const PythonValue* item : raw_[&value].children) require_value(*item);
      value.items.assign(raw_[&value].children.begin(), raw_[&value].children.end());
    }
  }

 private:
  std::string at(const PythonValue& value) const { return fmt::format("{}:{}", source_, value.line); }
  std::string at(const YAML::Mark& mark) const { return fmt::format("{}:{}", source_, mark.line + 1); }

  PythonValue& add(const YAML::Mark& mark, YAML::anchor_t anchor) {
    PythonValue& value = values_.emplace_back();
    value.line = mark.line + 1;
    if (anchor != 0) anchors_[anchor] = &value;
    return value;
  }

  void place(PythonValue& value) {
    if (open_.empty())
      root_ = &value;
    else
      raw_[open_.back()].children.push_back(&value);
  }

  void open(const YAML::Mark& mark, YAML::anchor_t anchor, const std::string& tag, const char* own_tag, Type type) {
    PythonValue& value = add(mark, anchor);
    place(value);
    open_.push_back(&value);
    const std::string_view name = yaml_tag(tag, value);
    value.type = tag == "?" || tag == "!" || name == own_tag ? type : Type::other;
    static const std::set<std::string_view> kKnown{"?", "!", "seq", "map", "set", "omap", "pairs"};
    QN_CHECK(kKnown.count(name) > 0, "{}: a value with the tag !!{}; leave the tag out", at(value), name);
  }

  /// "int" for !!int.
  std::string_view yaml_tag(std::string_view tag, const PythonValue& value) const {
    if (tag == "?" || tag == "!") return tag;
    QN_CHECK(tag.starts_with(kTags), "{}: fairseq's YAML reader does not know the tag '{}'; leave it out", at(value),
             tag);
    return tag.substr(kTags.size());
  }

  Type scalar_type(const std::string& tag, const PythonValue& value) const {
    static const std::map<std::string_view, Type> kTypes{
        {"str", Type::text},     {"int", Type::integer}, {"float", Type::real},
        {"bool", Type::boolean}, {"null", Type::null},   {"timestamp", Type::date},
        {"binary", Type::other}, {"merge", Type::text},  {"value", Type::text}};
    const std::string_view name = yaml_tag(tag, value);
    const auto it = kTypes.find(name);
    QN_CHECK(it != kTypes.end(), "{}: a scalar with the tag !!{}; leave the tag out", at(value), name);
    return it->second;
  }

  /// yaml-cpp reports quotes and the tag "!" alike; to PyYAML a scalar with this tag is a plain one.
  bool has_lone_tag(const YAML::Mark& mark) const {
    auto i = static_cast<size_t>(mark.pos);
    while (i < text_.size() && (text_[i] == '&' || text_[i] == '!')) {
      const size_t end = std::min(text_.size(), text_.find_first_of(" \t\r\n", i));
      if (text_[i] == '!') return end == i + 1;
      i = std::min(text_.size(), text_.find_first_not_of(" \t\r\n", end));
    }
    return false;
  }

  void require_value(const PythonValue& value) {
    const Raw& raw = raw_[&value];
    QN_CHECK(!raw.is_merge_key && !raw.is_value_key, "{}: '{}' has a meaning of its own in YAML; quote it", at(value),
             value.text);
  }

  void construct_dict(PythonValue& dict) {
    Raw& raw = raw_[&dict];
    if (raw.merged) return;
    raw.merged = true;
    EntryList merged, own;
    int sources = 0;
    for (size_t i = 0; i + 1 < raw.children.size(); i += 2) {
      PythonValue &key = *raw.children[i], &value = *raw.children[i + 1];
      if (raw_[&key].is_merge_key) {
        sources += merge(value, merged);
        continue;
      }
      QN_CHECK(key.type != Type::list && key.type != Type::dict, "{}: {} cannot be a key", at(key), key.type_name());
      require_value(value);
      own.put(key, value);
    }
    if (sources > 1)
      spdlog::warn(
          "{}: '<<' joins {} maps here, which PyYAML 6.0.4 does in another order than 6.0.3 and older; they are "
          "joined as by 6.0.3. Merge one map only.",
          at(dict), sources);
    for (const auto& [key, value] : own.entries) merged.put(*key, *value);
    dict.entries = std::move(merged.entries);
  }

  /// Entries in the order of Python's dict.
  struct EntryList {
    std::vector<PythonValue::Entry> entries;
    std::map<std::pair<Type, std::string>, size_t> places;

    void put(const PythonValue& key, const PythonValue& value) {
      const auto [it, is_new] = places.try_emplace({key.type, key.text}, entries.size());
      if (is_new)
        entries.emplace_back(&key, &value);
      else
        entries[it->second].second = &value;
    }
  };

  /// Adds what `<<: source` brings and returns the number of maps. Of a list the last map's entries come first, so that
  /// the first map's values win.
  int merge(PythonValue& source, EntryList& into) {
    std::vector<PythonValue*> maps{&source};
    if (source.type == Type::list) maps.assign(raw_[&source].children.rbegin(), raw_[&source].children.rend());
    for (PythonValue* map : maps) {
      QN_CHECK(map->type == Type::dict, "{}: '<<' takes a map or a list of maps, not {}", at(*map), map->type_name());
      construct_dict(*map);
      for (const auto& [key, value] : map->entries) into.put(*key, *value);
    }
    return static_cast<int>(maps.size());
  }

  const std::string& text_;
  const std::string& source_;
  std::deque<PythonValue>& values_;
  std::map<const PythonValue*, Raw> raw_;
  std::map<YAML::anchor_t, PythonValue*> anchors_;
  std::set<std::string> anchor_names_;
  std::vector<PythonValue*> open_;  ///< lists and dicts whose end has not come yet
  PythonValue* root_ = nullptr;
  bool started_ = false;
};

}  // namespace

const PythonValue* PythonValue::find(std::string_view text_key) const {
  for (const auto& [key, value] : entries)
    if (key->is_text() && key->text == text_key) return value;
  return nullptr;
}

const char* PythonValue::type_name() const {
  switch (type) {
    case Type::null:
      return "nothing (null)";
    case Type::boolean:
      return "a boolean";
    case Type::integer:
      return "an integer";
    case Type::real:
      return "a number with a point";
    case Type::date:
      return "a date";
    case Type::text:
      return "a text";
    case Type::list:
      return "a list";
    case Type::dict:
      return "a map";
    case Type::other:
      return "a value of another type";
  }
  QN_ASSERT(false, "unknown type");
}

PythonYaml::PythonYaml(const std::string& text, const std::string& source) {
  Composer composer(text, source, values_);
  std::istringstream stream(text);
  try {
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(composer)) {
    }
  } catch (const YAML::Exception& error) {
    fail("{}:{}: not valid YAML: {}", source, error.mark.line + 1, error.msg);
  }
  composer.construct();
  root_ = composer.root() != nullptr ? composer.root() : &values_.emplace_back();
}

}  // namespace qn
