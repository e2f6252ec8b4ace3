#include "data/sentence_table.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <set>

#include "core/error.h"
#include "data/split_lines.h"

namespace qn {
namespace {

// Names in GLUE's headers, the first that is there counts. QNLI's second sentence is called like SST-2's only one.
const std::vector<std::string_view> kFirst = {"sentence1", "question1", "premise",  "question",
                                              "#1 string", "text_a",    "sentence", "text"};
const std::vector<std::string_view> kSecond = {"sentence2", "question2", "hypothesis",
                                               "#2 string", "text_b",    "sentence"};
const std::vector<std::string_view> kLabel = {"gold_label", "label", "quality", "is_duplicate", "score"};

const std::set<std::string_view> kSpecialNames = {"<s>", "<pad>", "</s>", "<unk>"};

using Cells = std::vector<std::string_view>;

Cells cells_of(std::string_view line) {
  Cells cells;
  for (size_t begin = 0;;) {
    const size_t end = std::min(line.find('\t', begin), line.size());
    cells.push_back(line.substr(begin, end - begin));
    if (end == line.size()) return cells;
    begin = end + 1;
  }
}

std::string lower(std::string_view text) {
  std::string result(strip(text));
  std::transform(result.begin(), result.end(), result.begin(), [](unsigned char c) { return std::tolower(c); });
  return result;
}

/// Where the columns are; no number: there is none.
struct Places {
  bool header = false;
  size_t columns = 0;
  std::optional<size_t> input0, input1, label;
};

class ColumnFinder {
 public:
  ColumnFinder(const std::string& file, const Cells& first_row) : file_(file) {
    for (const std::string_view cell : first_row) names_.push_back(lower(cell));
  }

  Places find(const TableColumns& asked, bool may_lack_labels) {
    Places places;
    places.columns = names_.size();
    const bool named = is_name(asked.input0) || is_name(asked.input1) || is_name(asked.label);
    places.header = named || has_one_of(kFirst) || has_one_of(kLabel);
    if (places.header) {
      // Who names one sentence names both.
      if (asked.input0.empty()) places.input0 = known(kFirst);
      if (asked.input0.empty() && asked.input1.empty()) places.input1 = known(kSecond);
      if (places.input1 == places.input0) places.input1.reset();
      if (asked.label.empty()) places.label = known(kLabel);
    } else if (asked.input0.empty()) {
      QN_CHECK_USAGE(names_.size() <= 3,
                     "{} has {} columns and no header that tells which ones are sentences and labels: name them by "
                     "number, for instance --columns input0=4,label=2",
                     file_, names_.size());
      places.input0 = 0;
      if (names_.size() == 3) places.input1 = 1;
      if (names_.size() > 1) places.label = names_.size() - 1;
    }
    if (!asked.input0.empty()) places.input0 = place(asked.input0);
    if (!asked.input1.empty()) places.input1 = place(asked.input1);
    if (!asked.label.empty() && (!may_lack_labels || exists(asked.label))) places.label = place(asked.label);
    QN_CHECK_USAGE(places.input0,
                   "{}: none of the columns ({}) is known to hold sentences: name one, for instance "
                   "--columns input0={}",
                   file_, fmt::join(names_, ", "), names_.front());
    return places;
  }

 private:
  static bool is_name(const std::string& column) { return !column.empty() && !number(column); }
  static std::optional<size_t> number(const std::string& column) {
    size_t value = 0;
    const auto [stop, error] = std::from_chars(column.data(), column.data() + column.size(), value);
    return error == std::errc() && stop == column.data() + column.size() ? std::optional(value) : std::nullopt;
  }
  bool has(std::string_view name) const { return std::find(names_.begin(), names_.end(), name) != names_.end(); }
  bool has_one_of(const std::vector<std::string_view>& names) const {
    return std::any_of(names.begin(), names.end(), [&](std::string_view name) { return has(name); });
  }
  std::optional<size_t> place_of(std::string_view name) const {
    const auto found = std::find(names_.begin(), names_.end(), name);
    if (found == names_.end()) return std::nullopt;
    const auto other = std::find(found + 1, names_.end(), name);
    QN_CHECK_USAGE(other == names_.end(),
                   "{}: columns {} and {} are both called '{}': say by number which one is meant (--columns)", file_,
                   found - names_.begin() + 1, other - names_.begin() + 1, name);
    return static_cast<size_t>(found - names_.begin());
  }
  std::optional<size_t> known(const std::vector<std::string_view>& candidates) const {
    for (const std::string_view name : candidates)
      if (const auto found = place_of(name)) return found;
    return std::nullopt;
  }
  size_t place(const std::string& column) const {
    if (const auto value = number(column)) {
      QN_CHECK_USAGE(*value >= 1 && *value <= names_.size(),
                     "{} has {} columns, there is no number {} (they count from 1)", file_, names_.size(), column);
      return *value - 1;
    }
    const auto found = place_of(lower(column));
    QN_CHECK_USAGE(found, "{} has no column '{}' in its first line; there are: {}", file_, column,
                   fmt::join(names_, ", "));
    return *found;
  }
  bool exists(const std::string& column) const {
    const auto value = number(column);
    return value ? *value <= names_.size() : has(lower(column));
  }

  const std::string& file_;
  std::vector<std::string> names_;
};

/// Of any kind: what would cut it into words.
bool has_space(std::string_view text) {
  for (int length = 0; !text.empty(); text.remove_prefix(static_cast<size_t>(std::max(length, 1))))
    if (is_unicode_space(decode_utf8(text, length))) return true;
  return false;
}

void append_line(std::string& lines, std::string_view cell) { lines.append(strip(cell)) += '\n'; }

}  // namespace

std::optional<float> score_of(std::string_view word) {
  if (word.starts_with('+') && !word.starts_with("+-")) word.remove_prefix(1);
  float score = 0;
  const auto [stop, error] = std::from_chars(word.data(), word.data() + word.size(), score);
  const bool number = error == std::errc() && stop == word.data() + word.size() && std::isfinite(score);
  return number ? std::optional(score) : std::nullopt;
}

TableColumns TableColumns::parse(const std::string& text) {
  TableColumns columns;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string part = text.substr(begin, end - begin);
    const size_t equals = part.find('=');
    const std::string key = part.substr(0, equals), value = equals == std::string::npos ? "" : part.substr(equals + 1);
    std::string* target = key == "input0"   ? &columns.input0
                          : key == "input1" ? &columns.input1
                          : key == "label"  ? &columns.label
                                            : nullptr;
    QN_CHECK_USAGE(
        target != nullptr && !value.empty() && target->empty(),
        "columns are given as input0=NAME,input1=NAME,label=NAME (names or numbers from 1, each once); got '{}'", text);
    *target = value;
    begin = end + 1;
  }
  return columns;
}

SentenceTable read_sentence_table(const SplitInput& split, const TableColumns& columns, bool may_lack_labels) {
  SentenceTable table;
  const std::string file = split.text.name();
  std::string_view rest = split.text.view();
  while (rest.ends_with('\n') || rest.ends_with('\r')) rest.remove_suffix(1);
  std::optional<Places> places;
  for (int64_t line = 1; !rest.empty(); ++line) {
    const Cells cells = cells_of(take_line(rest));
    if (!places) {
      places = ColumnFinder(file, cells).find(columns, may_lack_labels);
      const auto name = [&](size_t place) {
        return places->header ? fmt::format("'{}'", strip(cells[place])) : fmt::format("column {}", place + 1);
      };
      table.columns = name(*places->input0);
      if (places->input1) table.columns += ", " + name(*places->input1);
      if (places->label) table.columns += "; labels " + name(*places->label);
      if (places->header) continue;
    }
    QN_CHECK(cells.size() == places->columns,
             "{}:{} has {} columns, but the first line has {}: repair or remove the line (columns are separated by "
             "tabulators, and quotation marks mean nothing)",
             file, line, cells.size(), places->columns);
    append_line(table.input0, cells[*places->input0]);
    if (places->input1) append_line(table.input1, cells[*places->input1]);
    if (places->label) {
      const std::string_view label = strip(cells[*places->label]);
      QN_CHECK(!label.empty() && !has_space(label), "{}:{}: '{}' is no label: one word is due", file, line, label);
      QN_CHECK(!kSpecialNames.contains(label),
               "{}:{}: '{}' is the name of a special symbol, no label can be called so: rename it", file, line, label);
      append_line(table.labels, label);
    }
    ++table.samples;
  }
  QN_CHECK(table.samples > 0, "{} has no line but its header", file);
  table.pairs = places->input1.has_value();
  table.labelled = places->label.has_value();
  return table;
}

}  // namespace qn
