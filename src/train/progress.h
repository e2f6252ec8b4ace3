// What a person sees of a run: on a terminal one line that rewrites itself, elsewhere a log line now and then.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace qn {

/// One finished update, summed over all ranks.
struct UpdateStats {
  int64_t update = 0;       ///< updates finished so far, this one included
  int64_t max_updates = 0;  ///< length of the run; 0: unknown
  int64_t epoch = 0;        ///< from 1
  int64_t samples = 0;      ///< target tokens (sentences, images) of this update
  double loss_base2 = 0;    ///< bits per sample
  std::string metrics;      ///< "ppl 34.9": what the loss means in the task's words; may be empty
  double lr = 0;
  double grad_norm = 0;   ///< before clipping
  double clip_share = 0;  ///< share of recent updates whose gradient was clipped, 0..1
  double seconds = 0;     ///< wall time of this update
  int64_t peak_rss_bytes = 0;
};

/// Peak resident memory of this process in bytes.
int64_t peak_rss_bytes();

/// "00:42:10", from a day on "2d 03:12:00".
std::string format_duration(double seconds);
/// Local time of seconds since 1970: "2026-01-31 08:15:00"; "an unknown time" for what is none or behind the year 9999.
std::string format_clock(double unix_time);

struct ProgressOptions {
  int64_t log_interval = 100;                  ///< updates between log lines when stderr is no terminal
  double log_seconds = 60;                     ///< and the longest time between them, in other work too; 0: any
  double window_seconds = 30;                  ///< speed is averaged over the newest updates that took this long
  double redraw_seconds = 0.1;                 ///< at most one redraw of the terminal line in this time
  std::optional<bool> terminal;                ///< unset: whether stderr is a terminal
  int columns = 0;                             ///< width of the terminal; 0: ask it before every redraw
  std::string unit = "samples";                ///< what speed counts, per second: "tok"
  double full_speed = 0;                       ///< samples per second at the measured matmul rate; 0: not measured
  std::function<double()> clock;               ///< seconds on a steady clock; unset: the system's
  std::function<void(std::string_view)> draw;  ///< writes to the terminal; unset: stderr
};

class TerminalLine;

/// For the rank that prints; create it after init_logging and before threads that log. On a terminal it puts itself in
/// front of the default logger's sinks, so that log lines of any part of the program appear above the progress line
/// instead of inside it. Not to be shared by threads, but other threads may log.
class ProgressReporter {
 public:
  /// Throws qn::Error unless log_interval is positive.
  explicit ProgressReporter(ProgressOptions options);
  ~ProgressReporter();
  ProgressReporter(const ProgressReporter&) = delete;
  ProgressReporter& operator=(const ProgressReporter&) = delete;

  /// Call after every update. Terminal: redraws. Elsewhere: logs the first update seen, every log_interval-th, the
  /// last, and what comes log_seconds after the line before.
  void report(const UpdateStats& stats);
  /// Something else than updates takes its time, and how far it is; lines as above.
  void begin_work(std::string what);
  void work(int64_t done, int64_t total);
  /// What was shown of it goes away.
  void end_work();
  /// A line that stays: an ordinary info log line.
  void message(std::string_view text);
  /// Makes the newest stats permanent (training ends or pauses). report() may follow; calling it twice changes nothing.
  void finish();

 private:
  struct Sample {
    int64_t samples;
    double seconds;
  };
  /// It is time for another redraw or line.
  bool due() const;
  void show();
  /// Of latest_, in at most so many columns where possible: what matters least is left out.
  std::string line(int columns) const;

  ProgressOptions options_;
  std::shared_ptr<TerminalLine> terminal_;  // null: not a terminal
  std::deque<Sample> window_;
  Sample window_sum_{};
  UpdateStats latest_;
  bool pending_ = false;  // latest_ is not visible yet
  bool shown_any_ = false;
  double last_draw_ = 0;  // or log line
  std::string work_;      // under way instead of updates
  double work_began_ = 0;
};

}  // namespace qn
