#include "train/event_file.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/machine.h"
#include "train/run_status.h"

namespace qn {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr std::string_view kPrefix = "events.out.tfevents.", kSuffix = ".quantnoise";
constexpr auto kEventRetry = std::chrono::seconds(10);
constexpr size_t kMostEventsHeldBack = size_t{16} << 20;  // bytes

constexpr std::array<uint32_t, 256> kCrcTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c & 1) != 0 ? (c >> 1) ^ 0x82f63b78U : c >> 1;
    table[i] = c;
  }
  return table;
}();

template <typename T>
void put(std::string& out, T value) {
  static_assert(std::endian::native == std::endian::little);
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

// Protobuf: a field is its number and type in a varint, then its value.
enum Wire : uint64_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}
void put_key(std::string& out, uint64_t field, Wire wire) { put_varint(out, field << 3 | wire); }
void put_bytes(std::string& out, uint64_t field, std::string_view bytes) {
  put_key(out, field, kBytes);
  put_varint(out, bytes.size());
  out += bytes;
}

/// wall_time (1) and step (2), with which every Event begins.
std::string event(double time, int64_t step) {
  std::string out;
  put_key(out, 1, kFixed64);
  put(out, time);
  put_key(out, 2, kVarint);
  put_varint(out, static_cast<uint64_t>(step));
  return out;
}

double value_of(const Json& value) {
  if (value.is_boolean()) return value.get<bool>() ? 1.0 : 0.0;
  return value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN();
}

int64_t integer_at(const Json& record, const char* key) {
  const auto found = record.find(key);
  return found != record.end() && found->is_number_integer() ? found->get<int64_t>() : 0;
}

/// "train/loss", "valid/ppl"; the objective of a weight is "kmeans/stage1/WEIGHT".
std::vector<Scalar> scalars_of(const Json& record, const std::string& kind) {
  std::vector<Scalar> scalars;
  if (kind == "kmeans") {
    const std::string prefix = fmt::format("kmeans/stage{}/", integer_at(record, "stage"));
    const Json objectives = record.value("objective", Json::object());
    for (const auto& [weight, value] : objectives.items()) scalars.push_back({prefix + weight, value_of(value)});
    return scalars;
  }
  for (const auto& [name, value] : record.items())
    if ((value.is_number() || value.is_boolean() || value.is_null()) && name != "update" && name != "time")
      scalars.push_back({kind + "/" + name, value_of(value)});
  return scalars;
}

/// Nothing for lines that are no records of numbers.
std::string events_of(std::string_view line) {
  const Json record = Json::parse(line.begin(), line.end(), nullptr, false);
  if (!record.is_object()) return {};
  const auto found = record.find("kind");
  const std::string kind = found != record.end() && found->is_string() ? found->get<std::string>() : "";
  const char* step = kind == "kmeans" ? "iteration" : kind == "stage" ? "stage" : "update";
  if (kind != "train" && kind != "valid" && kind != "stage" && kind != "kmeans" && kind != "packed") return {};
  const auto time = record.find("time");
  const double wall = time != record.end() && time->is_number() ? time->get<double>() : unix_time();
  return tf_record(scalar_event(wall, integer_at(record, step), scalars_of(record, kind)));
}

}  // namespace

uint32_t masked_crc32c(std::string_view bytes) {
  uint32_t crc = 0xffffffffU;
  for (const char byte : bytes) crc = kCrcTable[(crc ^ static_cast<unsigned char>(byte)) & 0xff] ^ (crc >> 8);
  crc = ~crc;
  return std::rotr(crc, 15) + 0xa282ead8U;
}

std::string tf_record(std::string_view bytes) {
  std::string out;
  put(out, static_cast<uint64_t>(bytes.size()));
  put(out, masked_crc32c(out));
  out += bytes;
  put(out, masked_crc32c(bytes));
  return out;
}

std::string version_event(double time) {
  std::string out = event(time, 0);
  put_bytes(out, 3, "brain.Event:2");  // file_version
  return out;
}

std::string session_event(double time, int64_t step) {
  std::string out = event(time, step), session;
  put_key(session, 1, kVarint);  // status
  put_varint(session, 1);        // START
  put_bytes(out, 7, session);    // session_log
  return out;
}

std::string scalar_event(double time, int64_t step, std::span<const Scalar> scalars) {
  std::string out = event(time, step), summary;
  for (const Scalar& scalar : scalars) {
    std::string value;
    put_bytes(value, 1, scalar.tag);  // tag
    put_key(value, 2, kFixed32);      // simple_value
    put(value, static_cast<float>(scalar.value));
    put_bytes(summary, 1, value);  // value
  }
  put_bytes(out, 5, summary);  // summary
  return out;
}

std::vector<fs::path> event_files(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kPrefix) && name.ends_with(kSuffix)) found.push_back(entry.path());
  }
  return found;
}

EventLog::EventLog(const fs::path& folder, std::string_view history) {
  const std::vector<fs::path> older = event_files(folder);
  const double now = unix_time();
  // Readers take files of a folder in the order of their names.
  path_ =
      folder / fmt::format("{}{:010}.{}.{}{}", kPrefix, static_cast<int64_t>(now), host_name(), ::getpid(), kSuffix);
  file_.emplace(path_, false);
  held_back_ = tf_record(version_event(now)) + tf_record(session_event(now, 0));
  for (size_t start = 0; start < history.size();) {
    const size_t end = std::min(history.find('\n', start), history.size());
    held_back_ += events_of(history.substr(start, end - start));
    start = end + 1;
  }
  write();
  std::error_code error;
  for (const fs::path& path : older)
    if (path != path_) fs::remove(path, error);
}

void EventLog::add(std::string_view line) {
  held_back_ += events_of(line);
  if (std::chrono::steady_clock::now() >= next_try_) write();
}

void EventLog::write() {
  if (held_back_.empty()) return;
  try {
    file_->append(held_back_);
    held_back_.clear();
    next_try_ = {};
  } catch (const Error& error) {
    if (!std::exchange(told_, true)) spdlog::warn("{}; the run goes on without it for now", error.what());
    next_try_ = std::chrono::steady_clock::now() + kEventRetry;
    if (held_back_.size() > kMostEventsHeldBack) held_back_.clear();  // the next start of the run makes the file whole
  }
}

}  // namespace qn
