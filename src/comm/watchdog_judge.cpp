#include "comm/watchdog_judge.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace qn {
namespace {

using Link = RankStatus::Link;

std::string name(std::span<const RankStatus> ranks, size_t r) { return rank_name(static_cast<int>(r), ranks[r].host); }

Verdict blame(std::span<const RankStatus> ranks, size_t r, const std::string& text) {
  return {static_cast<int>(r), name(ranks, r) + ' ' + text};
}

bool counts(const RankStatus& rank) { return rank.link == Link::connected || rank.link == Link::finished; }

bool waits(const RankStatus& rank) { return rank.link == Link::connected && rank.report.waiting; }

/// The one that has been waiting for `limit` in the latest collective; ranks.size() if there is none.
size_t longest_waiting(std::span<const RankStatus> ranks, double now, double limit) {
  size_t found = ranks.size();
  for (size_t r = 0; r < ranks.size(); ++r) {
    if (!waits(ranks[r]) || now - ranks[r].waiting_since < limit) continue;
    if (found == ranks.size() || ranks[r].report.collectives > ranks[found].report.collectives) found = r;
  }
  return found;
}

/// "rank 0 (a) and 3 others wait".
std::string those_waiting(std::span<const RankStatus> ranks, size_t first, uint64_t above) {
  const auto others =
      std::count_if(ranks.begin(), ranks.end(),
                    [&](const RankStatus& rank) { return waits(rank) && rank.report.collectives > above; }) -
      1;
  if (others == 0) return name(ranks, first) + " waits";
  return fmt::format("{} and {} other{} wait", name(ranks, first), others, others == 1 ? "" : "s");
}

std::string longer_limit(double limit) {
  return fmt::format("; if that may take longer than {:.0f} s, raise comm.watchdog_seconds", limit);
}

Verdict blame_last(std::span<const RankStatus> ranks, size_t last, size_t waiting, double now, double limit) {
  const RankStatus& rank = ranks[last];
  const RankReport& wanted = ranks[waiting].report;
  const std::string others =
      fmt::format("{} for it in {} (collective {})", those_waiting(ranks, waiting, rank.report.collectives),
                  wanted.doing, wanted.collectives);
  if (rank.link == Link::finished)
    return blame(ranks, last, fmt::format("has ended after collective {}, but {}", rank.report.collectives, others));
  return blame(
      ranks, last,
      fmt::format("is stuck: after collective {} it has been busy for {:.0f} s (phase: {}) while {}{}",
                  rank.report.collectives, now - rank.counted, rank.report.doing, others, longer_limit(limit)));
}

}  // namespace

std::string rank_name(int rank, const std::string& host) { return fmt::format("rank {} ({})", rank, host); }

void note_report(RankStatus& rank, RankReport report, double now) {
  rank.heard = now;
  if (report.collectives != rank.report.collectives) rank.counted = now;
  if (report.waits != rank.report.waits || report.collectives != rank.report.collectives) rank.waiting_since = now;
  rank.report = std::move(report);
}

void note_leaving(RankStatus& rank, RankStatus::Link link, double now) {
  if (rank.link != Link::connected) return;
  rank.link = link;
  rank.left = now;
}

std::optional<Verdict> judge_presence(std::span<const RankStatus> ranks, double now, double limit) {
  for (size_t r = 0; r < ranks.size(); ++r) {
    const RankStatus& rank = ranks[r];
    if (rank.link == Link::lost)
      return blame(
          ranks, r,
          "is dead: its connection ended without a goodbye (killed or crashed; if it printed nothing, look for "
          "the out-of-memory killer in its machine's log)");
    if (rank.link == Link::connected && !rank.report.problem.empty()) return blame(ranks, r, rank.report.problem);
  }
  for (size_t r = 0; r < ranks.size(); ++r) {
    const RankStatus& rank = ranks[r];
    if (rank.link == Link::failed && now - rank.left >= std::min(kFailedGrace, limit))
      return blame(ranks, r, "failed (its own message says why), and the launcher did not end the other ranks");
    if (rank.link == Link::connected && now - rank.heard >= limit)
      return blame(ranks, r,
                   fmt::format("has not answered for {:.0f} s: the process is stopped, or its machine or the network "
                               "is down",
                               now - rank.heard));
  }
  return std::nullopt;
}

std::optional<Verdict> judge(std::span<const RankStatus> ranks, double now, double limit) {
  if (auto verdict = judge_presence(ranks, now, limit)) return verdict;
  const size_t waiting = longest_waiting(ranks, now, limit);
  if (waiting == ranks.size()) return std::nullopt;
  uint64_t lowest = ranks[waiting].report.collectives;
  for (const RankStatus& rank : ranks)
    if (counts(rank)) lowest = std::min(lowest, rank.report.collectives);
  // Among the ranks that are furthest behind, one that does not wait is to blame, unless it has just got there.
  size_t inside = waiting;
  for (size_t r = 0; r < ranks.size(); ++r) {
    if (!counts(ranks[r]) || ranks[r].report.collectives != lowest) continue;
    if (now - ranks[r].counted < limit) return std::nullopt;
    if (waits(ranks[r]))
      inside = r;
    else if (lowest < ranks[waiting].report.collectives)
      return blame_last(ranks, r, waiting, now, limit);
  }
  const RankStatus& rank = ranks[inside];
  if (now - rank.waiting_since < limit) return std::nullopt;
  return blame(ranks, inside,
               fmt::format("has been waiting in {} for {:.0f} s, although every rank has entered it (collective {}): "
                           "the network or a GPU hangs{}",
                           rank.report.doing, now - rank.waiting_since, rank.report.collectives, longer_limit(limit)));
}

}  // namespace qn
