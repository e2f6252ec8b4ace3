// metrics.jsonl: one JSON object per line, for plots and scripts; survives crashes and resumes without duplicates.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "core/file_io.h"

namespace qn {

/// Numbers by name: the objectives of weights, the bytes of groups.
using NamedNumbers = std::map<std::string, double>;
using MetricValue = std::variant<int64_t, double, std::string, bool, NamedNumbers>;
struct MetricField {
  std::string name;
  MetricValue value;
};

/// For the one rank that writes. By convention a record has "kind" ("train", "valid", ...) and "update". A disk that
/// is full or fails for a while costs nothing: records are held back until they can be written.
class MetricsLog {
 public:
  /// Creates the file and its folder; without `append` an existing file is emptied. With it, an incomplete last line (a
  /// crash while writing) is removed with a warning. Throws qn::Error with path and reason.
  MetricsLog(const std::filesystem::path& path, bool append);
  /// Tries once more to write what is held back; what is lost then is logged.
  ~MetricsLog();

  /// Appends one line and hands it to the operating system, or holds it back: a warning says so, once. Fields keep
  /// their order; NaN and infinities become null. Returns the line. Throws InternalError for two fields of one name.
  std::string write(std::initializer_list<MetricField> fields) {
    return write(std::span(fields.begin(), fields.size()));
  }
  std::string write(std::span<const MetricField> fields);

  /// Tries to write what is held back; true when nothing is.
  bool flush();
  int64_t held_back() const { return held_back_; }
  const std::filesystem::path& path() const { return path_; }

  /// On resume: removes the records that will be written again: of kinds "train", "valid" and "spike" beyond this
  /// update, of kind "stage" beyond this number of stages, and of kind "kmeans" beyond this iteration of the stage
  /// after these. Other lines stay as they are. Returns the number of removed lines.
  int64_t truncate_after(int64_t update, int64_t stages, int64_t kmeans_iteration = 0);

 private:
  void forget_the_oldest();

  std::filesystem::path path_;
  std::optional<AppendedFile> file_;
  std::string text_;  // held back: whole lines
  int64_t held_back_ = 0;
  std::chrono::steady_clock::time_point next_try_;
};

}  // namespace qn
