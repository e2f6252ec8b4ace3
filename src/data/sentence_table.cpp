#include "data/sentence_table.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <optional>

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

  Places find(const TableColumns& asked) {
    Places places;
    places.columns = names_.size();
    const bool named = is_name(asked.input0) || is_name(asked.input1) || is_name(asked.label);
    places.header = named || known(kFirst) || known(kLabel);
    if (places.header) {
      places.input0 = known(kFirst);
      places.input1 = known(kSecond);
      if (places.input1 == places.input0) places.input1.reset();
      places.label = known(kLabel);
    } else if (asked.input0.empty()) {
      QN_CHECK_USAGE(names_.size() <= 3,
                     "{} has {} columns and no header that tells which ones are sentences and labels: name them by "
                     "number, for instance --columns input0=4,label=2",
                     file_, names_.size());
      places.input0 = 0;
      if (names_.size() == 3) places.input1 = 1;
      if (names_.size() > 1) places.label = names_.size() - 1;
    }
    if (!asked.input0.empty()) {
      places.input0 = place(asked.input0);
      places.input1.reset();  // who names one sentence names both
    }
    if (!asked.input1.empty()) places.input1 = place(asked.input1);
    if (!asked.label.empty()) places.label = find_label(asked.label);
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
  std::optional<size_t> place_of(std::string_view name) const {
    const auto found = std::find(names_.begin(), names_.end(), name);
    return found == names_.end() ? std::nullopt : std::optional(static_cast<size_t>(found - names_.begin()));
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
  /// Tables of test splits may lack it.
  std::optional<size_t> find_label(const std::string& column) const {
    const auto value = number(column);
    if (value ? *value > names_.size() : !place_of(lower(column))) return std::nullopt;
    return place(column);
  }

  const std::string& file_;
  std::vector<std::string> names_;
};

void append_line(std::string& lines, std::string_view cell) { lines.append(strip(cell)) += '\n'; }

}  // namespace

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

SentenceTable read_sentence_table(const SplitInput& split, const TableColumns& columns) {
  SentenceTable table;
  const std::string file = split.text.name();
  std::string_view rest = split.text.view();
  while (rest.ends_with('\n') || rest.ends_with('\r')) rest.remove_suffix(1);
  std::optional<Places> places;
  for (int64_t line = 1; !rest.empty(); ++line) {
    const Cells cells = cells_of(take_line(rest));
    if (!places) {
      places = ColumnFinder(file, cells).find(columns);
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
      QN_CHECK(!label.empty() && label.find(' ') == std::string_view::npos, "{}:{}: '{}' is no label: one word is due",
               file, line, label);
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
