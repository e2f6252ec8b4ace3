#include "train/run_status.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <exception>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/error.h"
#include "core/file_io.h"
#include "core/last_words.h"

namespace qn {

namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kStatusFormat = "quantnoise-status";
constexpr int64_t kStatusVersion = 1;
constexpr std::chrono::milliseconds kSoon{1000};

/// One list of members for writing and reading.
template <typename Record, typename Visit>
void visit_members(Record& r, const Visit& member) {
  member("run", r.run);
  member("command", r.command);
  member("program", r.program);
  member("host", r.host);
  member("pid", r.pid);
  member("ranks", r.ranks);
  member("message", r.message);
  member("phase", r.phase);
  member("part", r.part);
  member("parts", r.parts);
  member("update", r.update);
  member("max_updates", r.max_updates);
  member("epoch", r.epoch);
  member("stage", r.stage);
  member("stages", r.stages);
  member("latest", r.latest);
  member("seconds_left", r.seconds_left);
  member("saved_update", r.saved_update);
  member("saved_file", r.saved_file);
  member("saved", r.saved);
  member("started", r.started);
  member("progressed", r.progressed);
  member("patience", r.patience);
  member("written", r.written);
  member("beat", r.beat);
}

/// Texts may come from anywhere, and terminals obey control characters.
void take(const Json& value, std::string& member) {
  member = value.get<std::string>();
  for (char& c : member)
    if (c != '\n' && (static_cast<unsigned char>(c) < ' ' || c == '\x7f')) c = '?';
}
void take(const Json& value, int64_t& member) {
  constexpr uint64_t kMost = uint64_t{1} << 53;
  const bool count = value.is_number_unsigned() && value.get<uint64_t>() <= kMost;
  const bool none = value.is_number_integer() && value.get<int64_t>() == -1;
  QN_CHECK(count || (none && !value.is_number_unsigned()), "{} is no count", value.dump());
  member = value.get<int64_t>();
}
void take(const Json& value, double& member) { member = value.get<double>(); }

}  // namespace

double unix_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string to_json(const StatusRecord& record) {
  Json json{{"format", kStatusFormat}, {"version", kStatusVersion}, {"condition", name_of(record.condition)}};
  visit_members(record, [&](const char* name, const auto& value) { json[name] = value; });
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::optional<StatusRecord> parse_status(std::string_view text) {
  const Json json = Json::parse(text.begin(), text.end(), nullptr, false);
  if (!json.is_object() || json.value("format", Json()) != kStatusFormat ||
      json.value("version", Json()) != kStatusVersion)
    return std::nullopt;
  StatusRecord record;
  try {
    record.condition = value_named<RunCondition>(json.at("condition").get<std::string>(), "condition");
    visit_members(record, [&](const char* name, auto& member) { take(json.at(name), member); });
  } catch (const Json::exception&) {
    return std::nullopt;
  } catch (const Error&) {
    return std::nullopt;
  }
  return record;
}

RunStatus::RunStatus(const std::filesystem::path& folder, StatusRecord start, std::chrono::milliseconds interval)
    : path_(folder / kFileName),
      interval_(interval),
      record_(std::move(start)),
      exceptions_(std::uncaught_exceptions()),
      thread_([this] { write_again_and_again(); }) {
  edit([](StatusRecord& r) { r.started = r.progressed = unix_time(); }, true);
  set_last_words([this](const std::string& why) { end(RunCondition::failed, why); });
}

RunStatus::~RunStatus() {
  set_last_words({});
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
    if (record_.condition == RunCondition::running && std::uncaught_exceptions() > exceptions_)
      record_.condition = RunCondition::failed;
  }
  changed_.notify_all();
  thread_.join();
  write();
}

void RunStatus::write_again_and_again() {
  auto next = std::chrono::steady_clock::now();
  std::unique_lock lock(mutex_);
  while (!over_) {
    const auto now = std::chrono::steady_clock::now();
    if (now >= next || (soon_ && now >= next - interval_ + kSoon)) {
      soon_ = false;
      lock.unlock();
      write();
      lock.lock();
      next = std::chrono::steady_clock::now() + interval_;
      continue;
    }
    changed_.wait_until(lock, soon_ ? std::min(next, next - interval_ + kSoon) : next);
  }
}

void RunStatus::write() {
  const std::lock_guard writing(writing_);
  std::string text;
  {
    const std::lock_guard lock(mutex_);
    ++record_.beat;
    record_.written = unix_time();
    text = to_json(record_);
  }
  try {
    atomic_write_text(path_, text);
  } catch (const std::exception& error) {
    // By a thread of its own or at the end, one after the other. What can be written later mends it.
    if (!std::exchange(warned_, true))
      spdlog::warn("{}; until it can be written, `quantnoise status` shows the run as it was before", error.what());
  }
}

void RunStatus::edit(const std::function<void(StatusRecord&)>& change, bool soon) {
  {
    const std::lock_guard lock(mutex_);
    record_.progressed = unix_time();
    change(record_);
    soon_ = soon_ || soon;
  }
  if (soon) changed_.notify_all();
}

void RunStatus::enter(const std::string& phase, int64_t parts) {
  edit(
      [&](StatusRecord& r) {
        r.phase = phase;
        r.part = 0;
        r.parts = parts;
      },
      true);
}

void RunStatus::part_done(int64_t part, int64_t parts) {
  edit([&](StatusRecord& r) {
    r.part = part;
    r.parts = parts;
  });
}

StatusRecord RunStatus::now() const {
  const std::lock_guard lock(mutex_);
  return record_;
}

double RunStatus::seconds_per_update(int64_t update) {
  constexpr size_t kMarks = 512;  // the newest 256 updates at least
  const double now = unix_time();
  if (marks_.size() == kMarks) marks_.erase(marks_.begin(), marks_.begin() + kMarks / 2);
  marks_.push_back({update, now});
  const Mark& first = marks_.front();
  return update > first.update ? (now - first.time) / static_cast<double>(update - first.update) : 0.0;
}

void RunStatus::end(RunCondition condition, const std::string& message) {
  edit([&](StatusRecord& r) {
    r.condition = condition;
    r.message = message;
    r.phase.clear();
    r.part = r.parts = 0;
    r.seconds_left = condition == RunCondition::finished ? 0.0 : -1.0;
  });
  write();
}

}  // namespace qn
