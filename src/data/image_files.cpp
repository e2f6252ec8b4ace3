// Pictures in folders and lists.
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <optional>
#include <set>

#include "core/error.h"
#include "core/file_io.h"
#include "data/image_file.h"
#include "data/image_sources.h"
#include "data/input_text.h"
#include "data/labelled_files.h"
#include "data/prepared_folder.h"
#include "data/split_lines.h"

namespace qn {
namespace {

namespace fs = std::filesystem;

constexpr int32_t kMostClasses = 1 << 20;

std::optional<int32_t> class_number(const std::string& label) {
  int32_t number = -1;
  const char* const end = label.data() + label.size();
  const auto [rest, error] = std::from_chars(label.data(), end, number);
  if (error != std::errc() || rest != end || number < 0 || number >= kMostClasses) return std::nullopt;
  return number;
}

std::vector<std::string> read_class_names(const fs::path& path) {
  const InputText text(path, "list of classes");
  check_encoding({{}, "", path, text.view()});
  std::vector<std::string> names;
  for (std::string_view rest = text.view(); !rest.empty();) {
    names.emplace_back(strip(take_line(rest)));
    QN_CHECK(!names.back().empty(), "{}:{}: a class without a name", path.string(), names.size());
  }
  return names;
}

/// What the labels of all splits mean.
class Classes {
 public:
  /// `given`: --classes, may be empty.
  Classes(const std::vector<LabelledFiles>& splits, const fs::path& given) {
    const auto labelled = std::find_if(splits.begin(), splits.end(), [](const auto& s) { return s.labelled(); });
    if (labelled == splits.end() && given.empty()) return;
    origin_ = given.empty() ? labelled->origin.string() : given.string();
    numbers_ = std::all_of(splits.begin(), splits.end(), are_numbers);
    const auto count = fs::exists(given) ? std::nullopt : class_number(given.string());
    if (!given.empty() && !count)
      names_ = read_class_names(given);
    else if (numbers_)
      name_numbers(splits, count.value_or(0));
    else
      names_ = sorted_labels(*labelled);
    QN_CHECK_USAGE(!count || std::ssize(names_) == *count, "--classes {}: there are {} classes in {}", *count,
                   names_.size(), labelled->origin.string());
    if (numbers_) {
      if (given.empty()) warn_of_gaps(splits);
      return;
    }
    for (size_t c = 0; c < names_.size(); ++c)
      QN_CHECK(by_name_.emplace(names_[c], static_cast<int32_t>(c)).second, "{}: the class '{}' is there twice",
               origin_, names_[c]);
  }

  const std::vector<std::string>& names() const { return names_; }

  std::vector<int32_t> labels_of(const LabelledFiles& split) const {
    std::vector<int32_t> labels;
    for (size_t i = 0; i < split.labels.size(); ++i) {
      const std::string& label = split.labels[i];
      labels.push_back(label.empty() ? -1 : numbers_ ? *class_number(label) : number_of(label));
      QN_CHECK(labels.back() < std::ssize(names_) && (labels.back() >= 0 || label.empty()),
               "{}: the class '{}' of {} is none of the {} classes of {}; name all classes with --classes",
               split.origin.string(), label, split.files[i].string(), names_.size(), origin_);
    }
    return labels;
  }

 private:
  static bool are_numbers(const LabelledFiles& split) {
    return !split.labelled() ||
           (split.is_list && std::all_of(split.labels.begin(), split.labels.end(), [](const std::string& label) {
              return label.empty() || class_number(label);
            }));
  }
  static std::vector<std::string> sorted_labels(const LabelledFiles& split) {
    std::set<std::string> labels(split.labels.begin(), split.labels.end());
    labels.erase("");
    std::vector<std::string> sorted(labels.begin(), labels.end());
    if (std::all_of(sorted.begin(), sorted.end(), [](const std::string& label) { return class_number(label); }))
      std::stable_sort(sorted.begin(), sorted.end(), [](const std::string& a, const std::string& b) {
        return *class_number(a) < *class_number(b);  // 2 comes before 10
      });
    return sorted;
  }
  /// Whoever counts classes by a sample of pictures may miss some, also the last ones.
  void warn_of_gaps(const std::vector<LabelledFiles>& splits) const {
    std::set<std::string> seen;
    for (const LabelledFiles& split : splits) seen.insert(split.labels.begin(), split.labels.end());
    seen.erase("");
    if (seen.size() < names_.size())
      spdlog::warn(
          "{} classes, 0 to {}, of which {} have no picture: if there are more behind them, say how many with "
          "--classes",
          names_.size(), names_.size() - 1, names_.size() - seen.size());
  }
  /// 0 to the highest that occurs, and at least `count` of them, called as the lists' column `name` says.
  void name_numbers(const std::vector<LabelledFiles>& splits, int32_t count) {
    for (int32_t c = 0; c < count; ++c) names_.push_back(std::to_string(c));
    for (const LabelledFiles& split : splits) {
      for (const std::string& label : split.labels) {
        if (label.empty()) continue;
        const auto number = static_cast<size_t>(*class_number(label));
        while (names_.size() <= number) names_.push_back(std::to_string(names_.size()));
      }
      for (const auto& [label, name] : split.names)
        if (!label.empty() && !name.empty()) names_[static_cast<size_t>(*class_number(label))] = name;
    }
  }
  int32_t number_of(const std::string& name) const {
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? -1 : found->second;
  }

  std::string origin_;
  bool numbers_ = false;
  std::vector<std::string> names_;
  std::map<std::string, int32_t> by_name_;
};

/// Reads a file, which is decoded in any case: what is damaged is found now, not in training.
StoredImage read_stored(const fs::path& path, const ImageFilesOptions& options) {
  std::vector<std::byte> bytes = read_file_bytes(path);
  const Image image = decode_image(bytes, options.channels, path.string());
  if (options.resize == 0) return {image.height, image.width, std::move(bytes)};
  const int64_t shorter = std::min(image.height, image.width), to = std::min(shorter, options.resize);
  const Image small =
      resize_image(image.view(), image.height * to / shorter, image.width * to / shorter, options.filter);
  const auto levels = std::as_bytes(std::span(small.pixels));
  return {small.height, small.width, {levels.begin(), levels.end()}};
}

LabelledFiles find_files(const fs::path& input, const ImageFilesOptions& options) {
  if (fs::is_directory(input)) return files_of_folder(input);
  QN_CHECK_USAGE(fs::exists(input), "{}: there is no such folder of pictures, nor such a list", input.string());
  QN_CHECK_USAGE(!is_image_name(input), "{} is a picture; name a folder of pictures, or a list (CSV) of their names",
                 input.string());
  LabelledFiles list = files_of_list(input, options.root, options.columns);
  QN_CHECK_USAGE(fs::exists(list.files.front()),
                 "{} names files that are not there, {} is the first: say with --root which folder the names are "
                 "relative to",
                 input.string(), list.files.front().string());
  return list;
}

}  // namespace

ImageSources open_image_files(const ImageFilesOptions& options) {
  std::vector<LabelledFiles> splits;
  for (const auto& [name, input] : options.inputs) splits.push_back(find_files(input, options));
  const Classes classes(splits, options.classes);
  ImageSources sources;
  sources.kind = {options.resize == 0 ? ImageStorage::files : ImageStorage::pixels, options.channels, classes.names()};
  for (size_t s = 0; s < splits.size(); ++s) {
    ImageSource source;
    source.split = options.inputs[s].first;
    source.origin = splits[s].origin.string();
    source.labels = classes.labels_of(splits[s]);
    source.decodes = true;
    auto files = std::make_shared<const std::vector<fs::path>>(std::move(splits[s].files));
    source.read = [files, options](int64_t i) { return read_stored((*files)[static_cast<size_t>(i)], options); };
    sources.splits.push_back(std::move(source));
  }
  return sources;
}

}  // namespace qn
