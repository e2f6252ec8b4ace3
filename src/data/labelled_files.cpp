#include "data/labelled_files.h"

#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <charconv>

#include "core/error.h"
#include "core/text.h"
#include "data/image_file.h"
#include "data/input_text.h"
#include "data/prepared_folder.h"
#include "data/split_lines.h"

namespace qn {
namespace {

namespace fs = std::filesystem;

bool is_hidden(const fs::path& path) { return path.filename().string().starts_with('.'); }

/// Sorted, without hidden ones.
std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> entries;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; it != end; it.increment(error))
    if (!is_hidden(it->path())) entries.push_back(it->path());
  QN_CHECK(!error, "cannot list {}: {}", folder.string(), error.message());
  std::sort(entries.begin(), entries.end());
  return entries;
}

/// Goes through a folder of classes.
struct FolderSearch {
  LabelledFiles found;
  std::vector<fs::path> others;  ///< files that are not called as pictures are

  void add_below(const fs::path& folder, const std::string& label, int depth = 0) {
    QN_CHECK(depth < 32, "{}: folders in folders without end; is there a link to a folder above?", folder.string());
    for (const fs::path& entry : entries_of(folder)) {
      if (fs::is_directory(entry))
        add_below(entry, label, depth + 1);
      else
        add(entry, label);
    }
  }
  void add(const fs::path& file, const std::string& label) {
    if (!is_image_name(file)) {
      others.push_back(file);
      return;
    }
    found.files.push_back(file);
    found.labels.push_back(label);
  }
};

/// The fields of a line; nothing where a quote does not end.
std::vector<std::string> fields_of(std::string_view line, char separator) {
  std::vector<std::string> fields(1);
  bool quoted = false;
  for (size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (quoted && c == '"' && i + 1 < line.size() && line[i + 1] == '"') {
      fields.back() += c;
      ++i;
    } else if (c == '"' && (quoted || fields.back().empty())) {
      quoted = !quoted;
    } else if (c == separator && !quoted) {
      fields.emplace_back();
    } else {
      fields.back() += c;
    }
  }
  return quoted ? std::vector<std::string>() : fields;
}

constexpr size_t kNone = static_cast<size_t>(-1);

/// Where a list has what.
struct ListColumns {
  size_t file = kNone, label = kNone, name = kNone, count = 0;
  bool numbers = false;  // what the column of labels is called says that they are
};

/// "file=a,label=b" to {file: a, label: b}.
std::map<std::string, std::string> asked_columns(const std::string& text) {
  std::map<std::string, std::string> asked;
  if (text.empty()) return asked;
  for (const std::string& part : fields_of(text, ',')) {
    const size_t equals = part.find('=');
    const std::string what = part.substr(0, equals);
    QN_CHECK_USAGE(equals != std::string::npos && (what == "file" || what == "label" || what == "name"),
                   "--columns: '{}' is not of the form file=NAME, label=NAME or name=NAME", part);
    asked[what] = part.substr(equals + 1);
  }
  return asked;
}

ListColumns columns_of(const std::vector<std::string>& header, const std::string& list, const std::string& columns) {
  const auto asked = asked_columns(columns);
  const auto find = [&](const std::string& what, const std::vector<std::string>& usual, bool needed) {
    const auto given = asked.find(what);
    const std::vector<std::string> names = given == asked.end() ? usual : std::vector{given->second};
    for (const std::string& name : names) {
      const auto found = std::find(header.begin(), header.end(), name);
      if (found != header.end()) return static_cast<size_t>(found - header.begin());
    }
    QN_CHECK(
        !needed && given == asked.end(),
        "{} has no column '{}'; its header has: {}. Name the columns with --columns file=NAME,label=NAME,name=NAME",
        list, fmt::join(names, "', '"), fmt::join(header, ", "));
    return kNone;
  };
  ListColumns result;
  result.file = find("file", {"file", "filename", "path", "image"}, true);
  result.label = find("label", {"class_id", "label", "class"}, false);
  result.name = find("name", {"name", "class_name"}, false);
  result.count = header.size();
  result.numbers = result.label != kNone && header[result.label] == "class_id";
  return result;
}

/// "7" of "7", " 7" or "7.0", as tables with gaps have it; "" of "" and "-1".
std::string class_id_of(const std::string& field, const std::string& where) {
  constexpr int64_t kMost = 100'000;
  std::string_view text = strip(field);
  if (const size_t point = text.find('.'); point != text.npos && text.find_first_not_of('0', point + 1) == text.npos)
    text = text.substr(0, point);
  if (text.empty() || text == "-1") return {};
  int64_t number = -1;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  QN_CHECK(
      error == std::errc() && rest == text.data() + text.size() && number >= 0 && number < kMost,
      "{}: class_id is '{}': a number from 0 to {} is due, or nothing (or -1) where a picture has no class; classes "
      "with names go in a column `label`",
      where, field, kMost - 1);
  return std::to_string(number);
}

}  // namespace

bool LabelledFiles::labelled() const {
  return std::any_of(labels.begin(), labels.end(), [](const std::string& label) { return !label.empty(); });
}

LabelledFiles files_of_folder(const fs::path& folder) {
  FolderSearch search, loose;
  for (const fs::path& entry : entries_of(folder)) {
    if (!fs::is_directory(entry)) {
      loose.add(entry, "");
      continue;
    }
    check_encoding({{}, "", entry, entry.filename().native()});
    search.add_below(entry, entry.filename().string());
  }
  QN_CHECK(loose.found.files.empty() || search.found.files.empty(),
           "{} holds pictures ({}, ...) beside folders of pictures: put every picture into the folder of its class, or "
           "all into one folder if they have none",
           folder.string(), loose.found.files.front().filename().string());
  FolderSearch& used = loose.found.files.empty() ? search : loose;
  QN_CHECK(!used.found.files.empty(),
           "{} holds no JPEG or PNG files (.jpg, .jpeg, .png), neither in folders of classes nor by themselves",
           folder.string());
  if (!used.others.empty())
    spdlog::warn("{}: {} files are not called .jpg, .jpeg or .png and were passed over; the first is {}",
                 folder.string(), group_digits(std::ssize(used.others)), used.others.front().string());
  used.found.origin = folder;
  return std::move(used.found);
}

LabelledFiles files_of_list(const fs::path& list, const fs::path& root, const std::string& columns) {
  const InputText text(list, "list");
  const std::string name = text.name();
  check_encoding({{}, "", list, text.view()});
  std::string_view rest = text.view();
  const std::string_view first = take_line(rest);
  const char separator = first.find('\t') != std::string_view::npos ? '\t' : ',';
  const ListColumns at = columns_of(fields_of(first, separator), name, columns);
  const fs::path folder = root.empty() ? list.parent_path() : root;
  LabelledFiles result;
  result.origin = list;
  result.is_list = true;
  for (int64_t number = 2; !rest.empty(); ++number) {
    const std::string_view line = take_line(rest);
    if (line.empty()) continue;
    const std::vector<std::string> fields = fields_of(line, separator);
    QN_CHECK(fields.size() == at.count, "{}:{}: {}", name, number,
             fields.empty() ? "a quote does not end"
                            : fmt::format("{} fields, but the header has {}", fields.size(), at.count));
    QN_CHECK(!fields[at.file].empty(), "{}:{}: no name of a file", name, number);
    result.files.push_back(folder / fields[at.file]);
    std::string label = at.label == kNone ? "" : fields[at.label];
    if (at.numbers) label = class_id_of(label, fmt::format("{}:{}", name, number));
    result.labels.push_back(std::move(label));
    if (result.labels.back().empty() || at.name == kNone) continue;
    const auto [known, fresh] = result.names.emplace(result.labels.back(), fields[at.name]);
    QN_CHECK(known->second == fields[at.name], "{}:{}: label {} is called '{}' here and '{}' before", name, number,
             result.labels.back(), fields[at.name], known->second);
  }
  QN_CHECK(!result.files.empty(), "{} lists no pictures", name);
  return result;
}

}  // namespace qn
