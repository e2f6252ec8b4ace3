#include "train/metrics_log.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <system_error>
#include <vector>

#include "core/error.h"
#include "core/file_io.h"

namespace qn {
namespace {

using Json = nlohmann::ordered_json;

std::string read_text(const std::filesystem::path& path) {
  const std::vector<std::byte> bytes = read_file_bytes(path);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// A line cut short is no JSON object: its closing brace is missing.
bool is_record(std::string_view line) { return Json::parse(line, nullptr, false).is_object(); }

/// Makes the file end with a complete line.
void repair_tail(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return;
  const std::string text = read_text(path);
  if (text.empty() || text.back() == '\n') return;
  const size_t start = text.rfind('\n') + 1;  // npos + 1 == 0: the first line
  if (is_record(std::string_view(text).substr(start))) {
    atomic_write_text(path, text + "\n");
    return;
  }
  spdlog::warn("{}: removed an incomplete last line, left by a run that ended while writing it", path.string());
  atomic_write_text(path, std::string_view(text).substr(0, start));
}

/// Will this line be written again by a run that resumes after `update`?
bool is_repeated(std::string_view line, int64_t update) {
  const Json record = Json::parse(line, nullptr, false);
  if (!record.is_object()) return false;
  const auto kind = record.find("kind");
  const auto at = record.find("update");
  return kind != record.end() && (*kind == "train" || *kind == "valid") && at != record.end() &&
         at->is_number_integer() && at->get<int64_t>() > update;
}

}  // namespace

MetricsLog::MetricsLog(const std::filesystem::path& path, bool append) : path_(path) {
  if (path_.has_parent_path()) {
    std::error_code error;
    std::filesystem::create_directories(path_.parent_path(), error);
    QN_CHECK(!error, "cannot create the folder of {}: {}", path_.string(), error.message());
  }
  if (append) repair_tail(path_);
  open(append ? "ab" : "wb");
}

void MetricsLog::open(const char* mode) {
  std::FILE* file = std::fopen(path_.c_str(), mode);
  if (file == nullptr) fail_to("open");
  file_.reset(file);
}

void MetricsLog::fail_to(const char* action) const {
  fail("cannot {} {}: {}; check free space and permissions of its folder", action, path_.string(),
       std::generic_category().message(errno));
}

void MetricsLog::write(std::span<const MetricField> fields) {
  Json record = Json::object();
  for (const MetricField& field : fields) {
    QN_ASSERT(!record.contains(field.name), "metric '{}' is given twice in one record", field.name);
    std::visit([&](const auto& value) { record[field.name] = value; }, field.value);
  }
  // Texts may hold anything (paths, messages); bytes that are no UTF-8 must not end a run.
  const std::string line = record.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  const bool written = std::fwrite(line.data(), 1, line.size(), file_.get()) == line.size();
  if (!written || std::fflush(file_.get()) != 0) fail_to("write");
}

int64_t MetricsLog::truncate_after(int64_t update) {
  const std::string text = read_text(path_);
  std::string kept;
  int64_t removed = 0;
  for (size_t start = 0; start < text.size();) {
    const size_t end = std::min(text.find('\n', start), text.size() - 1) + 1;
    const std::string_view line = std::string_view(text).substr(start, end - start);
    if (is_repeated(line, update)) {
      ++removed;
    } else {
      kept += line;
    }
    start = end;
  }
  if (removed > 0) {
    atomic_write_text(path_, kept);
    open("ab");
  }
  return removed;
}

}  // namespace qn
