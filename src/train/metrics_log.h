// metrics.jsonl: one JSON object per line, for plots and scripts; survives crashes and resumes without duplicates.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>

namespace qn {

using MetricValue = std::variant<int64_t, double, std::string, bool>;
struct MetricField {
  std::string name;
  MetricValue value;
};

/// For the one rank that writes. By convention a record has "kind" ("train", "valid", ...) and "update".
class MetricsLog {
 public:
  /// Creates the file and its folder; without `append` an existing file is emptied. With it, an incomplete last line (a
  /// crash while writing) is removed with a warning. Throws qn::Error with path and reason.
  MetricsLog(const std::filesystem::path& path, bool append);

  /// Appends one line and hands it to the operating system. Fields keep their order; NaN and infinities become null.
  /// Throws qn::Error when it cannot be written (disk full), InternalError for two fields of one name.
  void write(std::initializer_list<MetricField> fields) { write(std::span(fields.begin(), fields.size())); }
  void write(std::span<const MetricField> fields);

  /// On resume: removes the records of kind "train" or "valid" beyond this update, which will be written again. Other
  /// lines stay as they are. Returns the number of removed lines.
  int64_t truncate_after(int64_t update);

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  void open(const char* mode);
  [[noreturn]] void fail_to(const char* action) const;

  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace qn
