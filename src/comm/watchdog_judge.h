// What the watchdog knows of every rank, and what it concludes: pure functions of the reports and the time.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace qn {

/// What a rank says of itself in a heartbeat. The counts are those of core/activity.h.
struct RankReport {
  uint64_t collectives = 0, waits = 0;
  bool waiting = false;
  std::string doing;    ///< "all-reduce", "validation", ...
  std::string problem;  ///< of its transport; empty: none
};

/// Times are seconds on one clock, that of the judge.
struct RankStatus {
  enum class Link {
    connected,
    finished,  ///< said goodbye
    failed,    ///< said goodbye after an error, which it reports itself
    lost,      ///< the connection ended without a goodbye
  };
  std::string host;
  Link link = Link::connected;
  RankReport report;
  double heard = 0.0;          ///< when the last report came
  double counted = 0.0;        ///< since when report.collectives is what it is
  double waiting_since = 0.0;  ///< since when it is in this wait, if it waits
  double left = 0.0;           ///< when the link changed
};

void note_report(RankStatus& rank, RankReport report, double now);
void note_leaving(RankStatus& rank, RankStatus::Link link, double now);

struct Verdict {
  int rank = -1;     ///< the one to blame; -1: none in particular
  std::string text;  ///< one sentence that names it
};

/// How long a failed rank gets to end the job by itself.
inline constexpr double kFailedGrace = 10.0;

/// The part of judge() that concerns ranks that are gone, silent or have a problem, and not what they wait for.
std::optional<Verdict> judge_presence(std::span<const RankStatus> ranks, double now, double limit);

/// Whether the job has to end, and why. `limit` seconds is the longest that a rank may keep silent, or keep another one
/// waiting. A rank is to blame for keeping others waiting if it has entered fewer collectives than one that has been
/// waiting that long.
std::optional<Verdict> judge(std::span<const RankStatus> ranks, double now, double limit);

/// "rank 3 (node7)".
std::string rank_name(int rank, const std::string& host);

}  // namespace qn
