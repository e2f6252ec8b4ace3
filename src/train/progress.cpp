#include "train/progress.h"

#include <spdlog/sinks/sink.h>
#include <spdlog/spdlog.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
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
    redraw();
  }
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
    const int columns = columns_ > 0 ? columns_ : terminal_columns();
    const std::string_view shown = std::string_view(text_).substr(0, static_cast<size_t>(std::max(columns - 1, 1)));
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
  const bool due =
      terminal_ ? options_.clock() - last_draw_ >= options_.redraw_seconds : stats.update % options_.log_interval == 0;
  if (due || !shown_any_ || stats.update == stats.max_updates) show();
}

void ProgressReporter::show() {
  if (terminal_) {
    terminal_->show(line());
    last_draw_ = options_.clock();
  } else {
    spdlog::info("{}", line());
  }
  pending_ = false;
  shown_any_ = true;
}

void ProgressReporter::message(std::string_view text) { spdlog::info("{}", text); }

void ProgressReporter::finish() {
  if (pending_) show();
  if (terminal_) terminal_->release();
}

std::string ProgressReporter::line() const {
  const UpdateStats& s = latest_;
  std::string text = fmt::format("epoch {} | {}", s.epoch, s.update);
  if (s.max_updates > 0) text += fmt::format("/{}", s.max_updates);
  text += " updates";
  if (window_sum_.seconds > 0) {
    const double per_update = window_sum_.seconds / static_cast<double>(window_.size());
    const auto left = static_cast<double>(s.max_updates - s.update);
    if (s.max_updates > 0) text += fmt::format(" | ETA {}", format_duration(std::max(0.0, left * per_update)));
    const double speed = static_cast<double>(window_sum_.samples) / window_sum_.seconds;
    text += fmt::format(" | {} {}/s", group_digits(std::llround(speed)), options_.unit);
    if (options_.full_speed > 0) text += fmt::format(" | MFU {:.1f}%", 100 * speed / options_.full_speed);
  }
  text += fmt::format(" | loss {:.3f}", s.loss_base2);
  if (!s.metrics.empty()) text += " | " + s.metrics;
  text += fmt::format(" | lr {:.3g} | gnorm {:.3g} | clip {:.0f}%", s.lr, s.grad_norm, 100 * s.clip_share);
  if (s.peak_rss_bytes > 0) text += fmt::format(" | memory {}", format_bytes(static_cast<uint64_t>(s.peak_rss_bytes)));
  return text;
}

}  // namespace qn
