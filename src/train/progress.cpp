#include "train/progress.h"

#include <fmt/chrono.h>
#include <spdlog/sinks/sink.h>
#include <spdlog/spdlog.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <limits>
#include <mutex>
#include <utility>

#include "core/error.h"
#include "core/text.h"

namespace qn {
namespace {

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void draw_on_stderr(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

constexpr int kWide = 100;    // columns from which on there is room for words
constexpr int kAlways = 100;  // worth of a part of the line that is never left out

int terminal_columns() {
  constexpr int kUsual = 80;
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kUsual;
}

}  // namespace

/// The bottom line of the terminal. It is also a log sink: it clears itself, lets the real sinks print, and comes back.
class TerminalLine final : public spdlog::sinks::sink {
 public:
  explicit TerminalLine(std::shared_ptr<spdlog::logger> wrapped) : wrapped_(std::move(wrapped)) {}

  /// The line in front of the default logger's sinks. Once there it stays, passing log lines through when no reporter
  /// uses it: exchanging the default logger again could hurt a thread that is logging.
  static std::shared_ptr<TerminalLine> install() {
    const std::shared_ptr<spdlog::logger> logger = spdlog::default_logger();
    if (!logger->sinks().empty()) {
      if (auto line = std::dynamic_pointer_cast<TerminalLine>(logger->sinks().front())) return line;
    }
    auto line = std::make_shared<TerminalLine>(logger);
    auto wrapper = logger->clone(logger->name());
    wrapper->sinks() = {line};
    spdlog::set_default_logger(std::move(wrapper));
    return line;
  }

  /// `columns` 0: ask the terminal.
  void open(std::function<void(std::string_view)> draw, int columns) {
    const std::lock_guard lock(mutex_);
    draw_ = std::move(draw);
    columns_ = columns;
  }
  void show(std::string text) {
    const std::lock_guard lock(mutex_);
    text_ = std::move(text);
    if (text_.empty()) draw_("\r\x1b[K");
    redraw();
  }
  /// Columns that a text may have.
  int columns() const { return std::max((columns_ > 0 ? columns_ : terminal_columns()) - 1, 1); }
  /// Leaves the text where it is and continues on the next line.
  void release() {
    const std::lock_guard lock(mutex_);
    if (!text_.empty()) draw_("\n");
    text_.clear();
  }

  void log(const spdlog::details::log_msg& message) override {
    const std::lock_guard lock(mutex_);
    if (!text_.empty()) draw_("\r\x1b[K");
    for (const spdlog::sink_ptr& inner : wrapped_->sinks()) {
      if (inner->should_log(message.level)) inner->log(message);
    }
    if (text_.empty()) return;
    for (const spdlog::sink_ptr& inner : wrapped_->sinks()) inner->flush();  // before the line is drawn below
    redraw();
  }
  void flush() override {
    for (const spdlog::sink_ptr& inner : wrapped_->sinks()) inner->flush();
  }
  void set_pattern(const std::string& pattern) override {
    for (const spdlog::sink_ptr& inner : wrapped_->sinks()) inner->set_pattern(pattern);
  }
  void set_formatter(std::unique_ptr<spdlog::formatter> formatter) override {
    for (const spdlog::sink_ptr& inner : wrapped_->sinks()) inner->set_formatter(formatter->clone());
  }

 private:
  void redraw() {
    if (text_.empty()) return;
    // One column stays free: some terminals wrap a line that fills them.
    const std::string_view shown = std::string_view(text_).substr(0, static_cast<size_t>(columns()));
    draw_(fmt::format("\r{}\x1b[K", shown));
  }

  const std::shared_ptr<spdlog::logger> wrapped_;
  std::mutex mutex_;
  std::function<void(std::string_view)> draw_;
  int columns_ = 0;
  std::string text_;
};

int64_t peak_rss_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

std::string format_duration(double seconds) {
  constexpr double kForever = 1e10;
  if (!(seconds >= 0 && seconds < kForever)) return "--:--:--";
  const auto total = static_cast<int64_t>(std::llround(seconds));
  const std::string clock = fmt::format("{:02}:{:02}:{:02}", total / 3600 % 24, total / 60 % 60, total % 60);
  return total < 86400 ? clock : fmt::format("{}d {}", total / 86400, clock);
}

std::string format_clock(double unix_time) {
  constexpr double kYear10000 = 253402300800.0;
  if (!(unix_time >= 0.0 && unix_time < kYear10000 - 86400.0)) return "an unknown time";
  return fmt::format("{:%Y-%m-%d %H:%M:%S}", fmt::localtime(static_cast<std::time_t>(unix_time)));
}

ProgressReporter::ProgressReporter(ProgressOptions options) : options_(std::move(options)) {
  QN_CHECK(options_.log_interval > 0, "the log interval must be at least one update, got {}", options_.log_interval);
  if (!options_.clock) options_.clock = steady_seconds;
  if (!options_.draw) options_.draw = draw_on_stderr;
  if (options_.terminal.value_or(isatty(STDERR_FILENO) == 1)) {
    terminal_ = TerminalLine::install();
    terminal_->open(options_.draw, options_.columns);
  }
}

ProgressReporter::~ProgressReporter() {
  if (terminal_) terminal_->release();
}

void ProgressReporter::report(const UpdateStats& stats) {
  window_.push_back({stats.samples, stats.seconds});
  window_sum_.samples += stats.samples;
  window_sum_.seconds += stats.seconds;
  while (window_.size() > 1 && window_sum_.seconds - window_.front().seconds >= options_.window_seconds) {
    window_sum_.samples -= window_.front().samples;
    window_sum_.seconds -= window_.front().seconds;
    window_.pop_front();
  }
  latest_ = stats;
  pending_ = true;
  const bool counted = !terminal_ && stats.update % options_.log_interval == 0;
  if (counted || due() || !shown_any_ || stats.update == stats.max_updates) show();
}

bool ProgressReporter::due() const {
  const double passed = options_.clock() - last_draw_;
  return terminal_ ? passed >= options_.redraw_seconds : options_.log_seconds > 0 && passed >= options_.log_seconds;
}

void ProgressReporter::show() {
  if (terminal_)
    terminal_->show(line(terminal_->columns()));
  else
    spdlog::info("{}", line(std::numeric_limits<int>::max()));
  last_draw_ = options_.clock();
  pending_ = false;
  shown_any_ = true;
}

void ProgressReporter::begin_work(std::string what) {
  work_ = std::move(what);
  work_began_ = options_.clock();
  if (!terminal_) last_draw_ = work_began_;  // what is soon over needs no line
}

void ProgressReporter::work(int64_t done, int64_t total) {
  if (work_.empty() || total <= 0 || !due()) return;
  last_draw_ = options_.clock();
  const double passed = last_draw_ - work_began_;
  std::string text = fmt::format("{}: {} of {}, {:.0f}%", work_, group_digits(done), group_digits(total),
                                 100.0 * static_cast<double>(done) / static_cast<double>(total));
  if (done > 0)
    text += fmt::format(", {} left",
                        format_duration(passed * static_cast<double>(total - done) / static_cast<double>(done)));
  if (terminal_)
    terminal_->show(text);
  else
    spdlog::info("{}", text);
}

void ProgressReporter::end_work() {
  if (terminal_ && !work_.empty()) terminal_->show(shown_any_ ? line(terminal_->columns()) : "");
  work_.clear();
}

void ProgressReporter::message(std::string_view text) { spdlog::info("{}", text); }

void ProgressReporter::finish() {
  if (pending_) show();
  if (terminal_) terminal_->release();
}

std::string ProgressReporter::line(int columns) const {
  const UpdateStats& s = latest_;
  struct Part {
    std::string text;
    int worth;  // the least is left out first
  };
  std::vector<Part> parts{{fmt::format("epoch {}", s.epoch), 3}};
  std::string updates = fmt::format("{}", s.update);
  if (s.max_updates > 0) updates += fmt::format("/{}", s.max_updates);
  parts.push_back({columns < kWide ? updates : updates + " updates", kAlways});
  if (window_sum_.seconds > 0) {
    const double per_update = window_sum_.seconds / static_cast<double>(window_.size());
    const auto left = static_cast<double>(s.max_updates - s.update);
    if (s.max_updates > 0)
      parts.push_back({fmt::format("ETA {}", format_duration(std::max(0.0, left * per_update))), 6});
    const double speed = static_cast<double>(window_sum_.samples) / window_sum_.seconds;
    parts.push_back({fmt::format("{} {}/s", group_digits(std::llround(speed)), options_.unit), 5});
    if (options_.full_speed > 0) parts.push_back({fmt::format("MFU {:.1f}%", 100 * speed / options_.full_speed), 1});
  }
  parts.push_back({fmt::format("loss {:.3f}", s.loss_base2), kAlways});
  if (!s.metrics.empty()) parts.push_back({s.metrics, 4});
  parts.push_back({fmt::format("lr {:.3g}", s.lr), kAlways});
  parts.push_back({fmt::format("gnorm {:.3g}", s.grad_norm), kAlways});
  parts.push_back({fmt::format("clip {:.0f}%", 100 * s.clip_share), 2});
  if (s.peak_rss_bytes > 0)
    parts.push_back({fmt::format("memory {}", format_bytes(static_cast<uint64_t>(s.peak_rss_bytes))), 0});
  const auto joined = [&] {
    std::string text;
    for (const Part& part : parts) text += (text.empty() ? "" : " | ") + part.text;
    return text;
  };
  for (int worth = 0; worth < kAlways && std::ssize(joined()) > columns; ++worth)
    std::erase_if(parts, [&](const Part& part) { return part.worth == worth; });
  return joined();
}

}  // namespace qn
