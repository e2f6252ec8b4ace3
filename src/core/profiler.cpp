#include "core/profiler.h"

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace qn {

const char* name_of(Phase phase) {
  static constexpr std::array<const char*, kPhases> kNames{"other",    "update",     "data",      "forward",
                                                           "backward", "all-reduce", "optimizer", "validation",
                                                           "k-means",  "checkpoint"};
  return kNames[static_cast<size_t>(phase)];
}

Profiler::Profiler(size_t events, Clock clock) : clock_(clock), since_(clock()), ring_(events) {
  QN_ASSERT(active_ == nullptr && events > 0);
  active_ = this;
}

Profiler::~Profiler() { active_ = nullptr; }

void Profiler::name_ops(std::span<const char* const> names) {
  QN_ASSERT(ops_.empty());
  for (const char* name : names) ops_.push_back({.name = name, .elsewhere = {}, .backward = {}});
}

Phase Profiler::enter(Phase phase, int64_t now) {
  phases_[static_cast<size_t>(current_)].ns += now - since_;
  ++phases_[static_cast<size_t>(phase)].count;
  since_ = now;
  return std::exchange(current_, phase);
}

void Profiler::leave(Phase outer, int64_t start, int64_t number) {
  const int64_t now = clock_();
  phases_[static_cast<size_t>(current_)].ns += now - since_;
  since_ = now;
  record({start, now - start, static_cast<double>(number), current_, -1});
  current_ = outer;
}

void Profiler::record_op(int32_t op, int64_t start, const Work& work) {
  const int64_t ns = clock_() - start;
  OpTotals& totals = ops_[static_cast<size_t>(op)];
  OpTotal& total = current_ == Phase::backward ? totals.backward : totals.elsewhere;
  ++total.calls;
  total.ns += ns;
  total.work += work;
  phases_[static_cast<size_t>(current_)].ops_ns += ns;
  record({start, ns, work.flops > 0.0 ? work.flops : work.bytes, current_, op});
}

void Profiler::record(const ProfileEvent& event) {
  ring_[static_cast<size_t>(recorded_) % ring_.size()] = event;
  ++recorded_;
}

std::array<PhaseTotal, kPhases> Profiler::phases() const {
  std::array<PhaseTotal, kPhases> totals = phases_;
  totals[static_cast<size_t>(current_)].ns += clock_() - since_;
  return totals;
}

std::vector<ProfileEvent> Profiler::events() const {
  const auto recorded = static_cast<size_t>(recorded_);
  std::vector<ProfileEvent> kept;
  for (size_t i = recorded - std::min(recorded, ring_.size()); i < recorded; ++i)
    kept.push_back(ring_[i % ring_.size()]);
  return kept;
}

}  // namespace qn
