// What the watchdog concludes from what it was told: no threads, no sockets, no clock.
#include "comm/watchdog_judge.h"

#include <gmock/gmock.h>

#include <vector>

#include "core/error.h"

namespace qn {
namespace {

using testing::AllOf, testing::HasSubstr;
using Link = RankStatus::Link;

constexpr double kLimit = 100.0;

RankReport computing(uint64_t collectives, const char* phase = "forward") {
  return {.collectives = collectives, .waits = 2 * collectives, .waiting = false, .doing = phase, .problem = {}};
}
RankReport waiting(uint64_t collectives, const char* in = "all-reduce") {
  return {.collectives = collectives, .waits = 2 * collectives + 1, .waiting = true, .doing = in, .problem = {}};
}

/// Three ranks; reports come when a test says so.
class Job {
 public:
  Job() {
    for (size_t r = 0; r < ranks_.size(); ++r) ranks_[r].host = fmt::format("host{}", r);
  }
  void report(size_t rank, const RankReport& report) { note_report(ranks_[rank], report, now_); }
  void leave(size_t rank, Link link) { note_leaving(ranks_[rank], link, now_); }
  /// Every rank that is still there repeats its last report each second.
  void pass(double seconds, int silent = -1) {
    for (const double end = now_ + seconds; now_ < end;) {
      now_ += 1.0;
      for (size_t r = 0; r < ranks_.size(); ++r)
        if (ranks_[r].link == Link::connected && static_cast<int>(r) != silent) report(r, RankReport(ranks_[r].report));
    }
  }
  std::optional<Verdict> verdict() const { return judge(ranks_, now_, kLimit); }

 private:
  double now_ = 1000.0;
  std::vector<RankStatus> ranks_{3};
};

#define EXPECT_BLAMED(job, culprit, matcher) \
  do {                                       \
    const auto verdict = (job).verdict();    \
    ASSERT_TRUE(verdict.has_value());        \
    EXPECT_EQ(verdict->rank, culprit);       \
    EXPECT_THAT(verdict->text, matcher);     \
  } while (false)

TEST(Judge, LetsRanksCompute) {
  Job job;
  for (size_t r = 0; r < 3; ++r) job.report(r, computing(7));
  job.pass(50 * kLimit);
  EXPECT_FALSE(job.verdict());
}

TEST(Judge, NamesADeadRankAtOnce) {
  Job job;
  for (size_t r = 0; r < 3; ++r) job.report(r, computing(7));
  job.leave(2, Link::lost);
  EXPECT_BLAMED(job, 2, HasSubstr("rank 2 (host2) is dead"));
}

TEST(Judge, LetsARankLeaveWithAGoodbye) {
  Job job;
  for (size_t r = 0; r < 3; ++r) job.report(r, computing(7));
  job.leave(1, Link::finished);
  job.leave(1, Link::lost);  // its connection closes afterwards
  job.pass(3 * kLimit);
  EXPECT_FALSE(job.verdict());
}

TEST(Judge, NamesASilentRankAfterTheLimit) {
  Job job;
  for (size_t r = 0; r < 3; ++r) job.report(r, computing(7));
  job.pass(kLimit - 1, 1);
  EXPECT_FALSE(job.verdict());
  job.pass(1, 1);
  EXPECT_BLAMED(job, 1, HasSubstr("rank 1 (host1) has not answered for 100 s"));
}

TEST(Judge, GivesAFailedRankTimeToEndTheJob) {
  Job job;
  for (size_t r = 0; r < 3; ++r) job.report(r, computing(7));
  job.leave(1, Link::failed);
  job.pass(kFailedGrace - 1);
  EXPECT_FALSE(job.verdict());
  job.pass(1);
  EXPECT_BLAMED(job, 1, HasSubstr("failed"));
}

TEST(Judge, BlamesTheRankThatKeepsTheOthersWaiting) {
  Job job;
  job.report(0, waiting(8));
  job.report(1, computing(7, "validation"));
  job.report(2, waiting(8));
  job.pass(kLimit - 1);
  EXPECT_FALSE(job.verdict());
  job.pass(1);
  EXPECT_BLAMED(job, 1,
                AllOf(HasSubstr("rank 1 (host1) is stuck"), HasSubstr("phase: validation"),
                      HasSubstr("rank 0 (host0) and 1 other wait for it in all-reduce (collective 8)")));
}

TEST(Judge, BlamesNobodyWhoGoesOn) {
  // Rank 0 has started sums far ahead and waits for them; rank 1 is slow, but never slower than the limit.
  Job job;
  job.report(0, waiting(100));
  job.report(2, waiting(100));
  for (uint64_t step = 7; step < 20; ++step) {
    job.report(1, computing(step));
    job.pass(kLimit - 10);
    EXPECT_FALSE(job.verdict()) << step;
  }
}

TEST(Judge, TellsOneWaitFromTheNext) {
  // Rank 0 waits again and again, never long: rank 1 may take its time for something that nobody waits for.
  Job job;
  job.report(1, computing(7));
  for (uint64_t i = 0; i < 20; ++i) {
    RankReport report = waiting(8, "kernels of its GPU");
    report.waits = 100 + 2 * i;
    job.report(0, report);
    job.report(2, computing(7));
    job.pass(kLimit - 10);
    EXPECT_FALSE(job.verdict());
  }
}

TEST(Judge, BlamesTheOneThatComputesAmongTheLast) {
  // Rank 2 is as far behind, but waits itself.
  Job job;
  job.report(0, waiting(9));
  job.report(1, computing(8));
  job.report(2, waiting(8, "broadcast"));
  job.pass(kLimit);
  EXPECT_BLAMED(job, 1, HasSubstr("is stuck"));
}

TEST(Judge, BlamesTheTransportWhenAllHaveEntered) {
  Job job;
  for (size_t r = 0; r < 3; ++r) job.report(r, waiting(8));
  job.pass(kLimit - 1);
  EXPECT_FALSE(job.verdict());
  job.pass(1);
  const auto verdict = job.verdict();
  ASSERT_TRUE(verdict.has_value());
  EXPECT_THAT(verdict->text,
              AllOf(HasSubstr("waiting in all-reduce for 100 s"), HasSubstr("the network or a GPU hangs")));
}

TEST(Judge, BlamesTheTransportWhenTheRootOfABroadcastHasGoneOn) {
  Job job;
  job.report(0, computing(8));
  job.report(1, computing(8));
  job.report(2, waiting(8, "broadcast"));
  job.pass(kLimit);
  EXPECT_BLAMED(job, 2, HasSubstr("waiting in broadcast"));
}

TEST(Judge, BlamesARankThatEndedTooEarly) {
  Job job;
  job.report(0, waiting(8));
  job.report(1, computing(7));
  job.report(2, waiting(8));
  job.leave(1, Link::finished);
  job.pass(kLimit);
  EXPECT_BLAMED(job, 1, AllOf(HasSubstr("has ended after collective 7"), HasSubstr("rank 0 (host0) and 1 other wait")));
}

TEST(Judge, PassesOnAProblemOfATransport) {
  Job job;
  RankReport report = computing(7);
  report.problem = "cannot reach its neighbours";
  job.report(2, report);
  EXPECT_BLAMED(job, 2, HasSubstr("rank 2 (host2) cannot reach its neighbours"));
}

TEST(Judge, OfPresenceIgnoresWhatIsWaitedFor) {
  std::vector<RankStatus> rank{1};
  note_report(rank[0], waiting(8), 0.0);
  note_report(rank[0], waiting(8), 2 * kLimit);
  EXPECT_FALSE(judge_presence(rank, 2 * kLimit, kLimit));
  EXPECT_TRUE(judge(rank, 2 * kLimit, kLimit));
}

}  // namespace
}  // namespace qn
