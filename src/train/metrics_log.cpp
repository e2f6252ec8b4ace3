#include "train/metrics_log.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <system_error>
#include <vector>

#include "core/error.h"
#include "core/number_text.h"

namespace qn {
namespace {

using Json = nlohmann::ordered_json;

constexpr auto kLogRetry = std::chrono::seconds(10);
constexpr size_t kMostRecordsHeldBack = size_t{64} << 20;  // bytes: a quarter of a million records

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

/// Will this line be written again by a run that resumes after `update` with so many stages done?
bool is_repeated(std::string_view line, int64_t update, int64_t stages, int64_t kmeans_iteration) {
  const Json record = Json::parse(line, nullptr, false);
  if (!record.is_object()) return false;
  const auto beyond = [&](const char* key, int64_t limit) {
    const auto value = record.find(key);
    return value != record.end() && value->is_number_integer() && value->get<int64_t>() > limit;
  };
  const Json kind = record.value("kind", Json());
  if (kind == "stage") return beyond("stage", stages);
  if (kind == "kmeans")
    return beyond("stage", stages + 1) || (beyond("stage", stages) && beyond("iteration", kmeans_iteration));
  return (kind == "train" || kind == "valid" || kind == "spike") && beyond("update", update);
}

}  // namespace

MetricsLog::MetricsLog(const std::filesystem::path& path, bool append) : path_(path) {
  if (path_.has_parent_path()) {
    std::error_code error;
    std::filesystem::create_directories(path_.parent_path(), error);
    QN_CHECK(!error, "cannot create the folder of {}: {}", path_.string(), error.message());
  }
  if (append) repair_tail(path_);
  file_.emplace(path_, append);
}

MetricsLog::~MetricsLog() {
  if (!flush()) spdlog::error("{} records are lost: {} cannot be written", held_back_, path_.string());
}

std::string MetricsLog::write(std::span<const MetricField> fields) {
  Json record = Json::object();
  for (const MetricField& field : fields) {
    QN_ASSERT(!record.contains(field.name), "metric '{}' is given twice in one record", field.name);
    std::visit([&](const auto& value) { record[field.name] = value; }, field.value);
  }
  // Texts may hold anything (paths, messages); bytes that are no UTF-8 must not end a run.
  std::string line = json_for_yaml(record.dump(-1, ' ', false, Json::error_handler_t::replace)) + "\n";
  text_ += line;
  ++held_back_;
  if (std::chrono::steady_clock::now() >= next_try_) flush();
  if (text_.size() > kMostRecordsHeldBack) forget_the_oldest();
  return line;
}

bool MetricsLog::flush() {
  if (text_.empty()) return true;
  const bool failing = next_try_ != std::chrono::steady_clock::time_point{};
  try {
    file_->append(text_);
  } catch (const Error& error) {
    if (!failing) spdlog::warn("{}; the run goes on, records are held back until they can be written", error.what());
    next_try_ = std::chrono::steady_clock::now() + kLogRetry;
    return false;
  }
  if (failing)
    spdlog::info("{} can be written again: {} records that were held back are there", path_.string(), held_back_);
  next_try_ = {};
  text_.clear();
  held_back_ = 0;
  return true;
}

void MetricsLog::forget_the_oldest() {
  const size_t end = text_.find('\n', text_.size() / 2) + 1;
  const auto lines = std::count(text_.begin(), text_.begin() + static_cast<ptrdiff_t>(end), '\n');
  spdlog::warn("{} records are lost: {} could not be written for too long", lines, path_.string());
  text_.erase(0, end);
  held_back_ -= lines;
}

int64_t MetricsLog::truncate_after(int64_t update, int64_t stages, int64_t kmeans_iteration) {
  const std::string text = read_text(path_);
  std::string kept;
  int64_t removed = 0;
  for (size_t start = 0; start < text.size();) {
    const size_t end = std::min(text.find('\n', start), text.size() - 1) + 1;
    const std::string_view line = std::string_view(text).substr(start, end - start);
    if (is_repeated(line, update, stages, kmeans_iteration)) {
      ++removed;
    } else {
      kept += line;
    }
    start = end;
  }
  if (removed > 0) {
    atomic_write_text(path_, kept);
    file_.emplace(path_, true);
  }
  return removed;
}

}  // namespace qn
