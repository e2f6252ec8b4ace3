// Where the time of a run goes (--profile): totals by phase and by op, and the newest events for a trace.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace qn {

/// What a run is doing. Time counts for the innermost phase only, so the phases add up to the whole run.
enum class Phase : uint8_t {
  other,       ///< no phase: start-up, log messages
  update,      ///< what is left of an update
  data,        ///< reading and batching tokens
  forward,     ///< of training
  backward,    ///< of training
  all_reduce,  ///< communication of an update, waiting for other ranks included
  optimizer,   ///< norm, clipping and the step
  validation,  ///< also what `eval` does
  kmeans,      ///< with its communication
  checkpoint,  ///< reading and writing model files, as far as the run waits for it
};
inline constexpr size_t kPhases = 10;
const char* name_of(Phase phase);
/// The phase that the computing thread is in, profiled or not: other threads may ask.
inline constinit std::atomic<Phase> current_phase{Phase::other};

/// What an op had to do; 0 where it is not known.
struct Work {
  double flops = 0.0, bytes = 0.0;
  Work& operator+=(const Work& other) {
    flops += other.flops;
    bytes += other.bytes;
    return *this;
  }
};

struct PhaseTotal {
  int64_t count = 0, ns = 0;
  int64_t ops_ns = 0;  ///< the part of `ns` that was spent in ops
};

struct OpTotal {
  int64_t calls = 0, ns = 0;
  Work work;
};

/// An op's calls in the backward phase, and all others.
struct OpTotals {
  std::string name;
  OpTotal elsewhere, backward;
};

/// One finished phase or op.
struct ProfileEvent {
  int64_t start_ns, duration_ns;
  double value;  ///< op: operations or bytes; phase: the number it was given, or -1
  Phase phase;   ///< op: the phase that it was called in
  int32_t op;    ///< -1: a phase
};

/// Records what one thread does, the one that made it, from construction to destruction. Kernels are plain functions
/// and phases are spread over the program, so both find the profiler through active(): at most one per thread.
class Profiler {
 public:
  static constexpr size_t kEvents = size_t{1} << 16;
  using Clock = int64_t (*)();  ///< nanoseconds
  static int64_t steady_ns() {
    return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
  }

  /// Keeps the newest `events` events. Everything that recording needs is allocated here.
  explicit Profiler(size_t events = kEvents, Clock clock = steady_ns);
  ~Profiler();
  Profiler(const Profiler&) = delete;
  Profiler& operator=(const Profiler&) = delete;

  /// The profiler of this thread, or null: nothing is to be recorded.
  static Profiler* active() { return active_; }

  /// Names the ops 0 .. names.size() - 1; once, before the first op.
  void name_ops(std::span<const char* const> names);

  int64_t now() const { return clock_(); }
  /// Makes `phase` the current one at time `now` and returns the one it interrupts.
  Phase enter(Phase phase, int64_t now);
  /// Back to phase `outer`; the current one had begun at `start`.
  void leave(Phase outer, int64_t start, int64_t number);
  /// An op that began at `start` ends now.
  void record_op(int32_t op, int64_t start, const Work& work);

  /// Totals so far, by Phase; times add up to the profiler's age.
  std::array<PhaseTotal, kPhases> phases() const;
  const std::vector<OpTotals>& ops() const { return ops_; }
  /// The events kept, in the order in which they ended.
  std::vector<ProfileEvent> events() const;
  int64_t recorded_events() const { return recorded_; }

 private:
  void record(const ProfileEvent& event);

  static inline thread_local constinit Profiler* active_ = nullptr;

  Clock clock_;
  int64_t since_;  // time up to here is in phases_
  Phase current_ = Phase::other;
  std::array<PhaseTotal, kPhases> phases_{};
  std::vector<OpTotals> ops_;
  std::vector<ProfileEvent> ring_;
  int64_t recorded_ = 0;
};

/// From here to the end of the scope the process is in a phase; an active profiler counts the time as the phase's.
/// For the computing thread only.
class ProfileScope {
 public:
  /// `number` tells scopes apart in the trace, e.g. updates.
  explicit ProfileScope(Phase phase, int64_t number = -1)
      : profiler_(Profiler::active()), number_(number), enclosing_(current_phase.load(std::memory_order_relaxed)) {
    current_phase.store(phase, std::memory_order_relaxed);
    if (profiler_ == nullptr) return;
    start_ = profiler_->now();
    outer_ = profiler_->enter(phase, start_);
  }
  ~ProfileScope() {
    current_phase.store(enclosing_, std::memory_order_relaxed);
    if (profiler_ != nullptr) profiler_->leave(outer_, start_, number_);
  }
  ProfileScope(const ProfileScope&) = delete;
  ProfileScope& operator=(const ProfileScope&) = delete;

 private:
  Profiler* profiler_;
  int64_t number_, start_ = 0;
  Phase enclosing_, outer_ = Phase::other;
};

}  // namespace qn
