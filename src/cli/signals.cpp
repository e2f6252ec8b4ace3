#include "cli/signals.h"

#include <poll.h>
#include <pthread.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <mutex>
#include <string>
#include <thread>

#include "core/file_io.h"

namespace qn::cli {
namespace {

using Clock = std::chrono::steady_clock;

/// Launchers and `timeout` send the same signal to a process and to its group: what comes within this time is one.
constexpr std::chrono::seconds kSameSignal{1};

std::atomic<int> first_signal = 0;
std::mutex ending_mutex;  // of the two below
bool ending = false;
std::optional<int> ending_status;

sigset_t stop_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1, SIGUSR2}) sigaddset(&set, signal);
  struct sigaction hangup {};
  if (sigaction(SIGHUP, nullptr, &hangup) == 0 && hangup.sa_handler != SIG_IGN) sigaddset(&set, SIGHUP);
  return set;
}

std::string name_of_signal(int signal) {
  const char* name = sigabbrev_np(signal);
  return name != nullptr ? fmt::format("SIG{}", name) : fmt::format("signal {}", signal);
}

/// Past the logger, whose lock may be held by a thread that waits for a full pipe.
void print_last_words(const std::string& text) {
  pollfd out{STDERR_FILENO, POLLOUT, 0};
  if (!spdlog::default_logger_raw()->should_log(spdlog::level::info) || poll(&out, 1, 0) <= 0) return;
  const std::string line = "quantnoise: " + text + "\n";
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
}

[[noreturn]] void end_now(int signal, const char* what, int status) {
  discard_temporaries();
  print_last_words(fmt::format("{}: {}", name_of_signal(signal), what));
  _exit(status);
}

/// With ending_mutex held.
[[noreturn]] void end_with_nothing_to_save(int signal) {
  if (ending_status) end_now(signal, "ended; run the same command to go on", *ending_status);
  end_now(signal, "ended", 128 + signal);
}

void take(const sigset_t& signals) {
  Clock::time_point first{};
  for (;;) {
    int signal = 0;
    if (sigwait(&signals, &signal) != 0) continue;
    const std::unique_lock lock(ending_mutex);
    if (ending) end_with_nothing_to_save(signal);
    if (first_signal == 0) {
      first = Clock::now();
      first_signal = signal;
      spdlog::info("{}: saving, then ending. A second Ctrl-C ends at once, without saving", name_of_signal(signal));
    } else if (signal == SIGINT && Clock::now() - first >= kSameSignal) {
      end_now(signal, "ended at once; what was not saved yet is lost", 128 + signal);
    }
  }
}

}  // namespace

void block_stop_signals() {
  const sigset_t signals = stop_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

void take_stop_signals() {
  const sigset_t signals = stop_signals();
  // Shells start background jobs with SIGINT ignored, and POSIX leaves open whether sigwait() sees ignored signals.
  for (int signal = 1; signal < NSIG; ++signal)
    if (sigismember(&signals, signal) == 1) std::signal(signal, SIG_DFL);
  std::thread([signals] { take(signals); }).detach();
}

bool stop_requested() { return first_signal != 0; }

void end_on_stop_signals(std::optional<int> status) {
  const std::lock_guard lock(ending_mutex);
  ending = true;
  ending_status = status;
  if (first_signal != 0) end_with_nothing_to_save(first_signal);
}

}  // namespace qn::cli
