// The watchdog on real jobs: ranks that die, stop, hang, fail or leave, and ranks that are merely slow.
#include "comm/watchdog.h"

#include <gmock/gmock.h>
#include <sys/wait.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "core/error.h"

namespace qn::test {
namespace {

using testing::AllOf, testing::HasSubstr, testing::Not, testing::ContainsRegex;

constexpr int kRanks = 3;
constexpr double kSeconds = 2.0;

struct Outcome {
  int status = -1;
  double seconds = 0.0;
  std::string output;
};

/// What the launcher does when one rank ends badly.
enum class Launcher {
  ends_all,  ///< after two seconds, in which the ranks can say why they end
  waits,     ///< nothing: only the watchdog can end the others; the launcher's own status is then 0
};

/// Runs watchdog_ranks; a job that does not end by itself is killed after a minute and has status 124 or 137.
Outcome run(const std::string& what, int culprit, double limit = kSeconds, Launcher launcher = Launcher::ends_all) {
  const char* setting = launcher == Launcher::waits ? "orte_enable_recovery=1" : "odls_base_sigkill_timeout=2";
  const std::string command =
      fmt::format("OMPI_MCA_{} OMP_NUM_THREADS=1 timeout -k 5 60 {}/launch/run -n {} {} {} {} {} 2>&1", setting,
                  QN_SOURCE_DIR, kRanks, QN_WATCHDOG_RANKS, what, culprit, limit);
  const auto start = std::chrono::steady_clock::now();
  Outcome outcome;
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return outcome;
  std::array<char, 4096> part{};
  while (const size_t count = std::fread(part.data(), 1, part.size(), pipe)) outcome.output.append(part.data(), count);
  const int status = pclose(pipe);
  outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return outcome;
}

/// Every other rank says that it ends, and why.
void expect_all_others_end(const Outcome& outcome, int culprit, int status = kWatchdogExit) {
  EXPECT_EQ(outcome.status, status);
  for (int r = 0; r < kRanks; ++r)
    if (r != culprit) {
      EXPECT_THAT(outcome.output, ContainsRegex(fmt::format("\\[rank {}\\] watchdog: ", r)));
    }
  EXPECT_THAT(outcome.output, Not(HasSubstr("finished")));
  EXPECT_THAT(outcome.output, HasSubstr("transport aborted"));
  EXPECT_LT(outcome.seconds, 40.0) << "the limit was " << kSeconds << " s";
  if (testing::Test::HasFailure()) std::fprintf(stderr, "status %d:\n%s\n", outcome.status, outcome.output.c_str());
}

class WatchdogFinds : public testing::TestWithParam<int> {
 protected:
  int culprit() const { return GetParam(); }
  std::string named() const { return fmt::format("rank {} \\([^)]+\\) ", culprit()); }
};
INSTANTIATE_TEST_SUITE_P(Culprit, WatchdogFinds, testing::Values(0, 1, 2));

TEST_P(WatchdogFinds, ADeadRank) {
  const Outcome outcome = run("killed", culprit(), kSeconds, Launcher::waits);
  EXPECT_THAT(outcome.output, ContainsRegex(named() + "is dead"));
  EXPECT_LT(outcome.seconds, 10.0);  // seen at once, whatever the limit
  expect_all_others_end(outcome, culprit(), 0);
}
TEST_P(WatchdogFinds, AStoppedRank) {
  const Outcome outcome = run("stopped", culprit());
  EXPECT_THAT(outcome.output, ContainsRegex(named() + "has not answered for [2-9] s"));
  expect_all_others_end(outcome, culprit());
}
TEST_P(WatchdogFinds, AnEndlessLoop) {
  const Outcome outcome = run("endless", culprit(), kSeconds, Launcher::waits);
  EXPECT_THAT(outcome.output, ContainsRegex(named() + "is stuck: after collective [0-9]+ it has been busy for [2-9] s "
                                                      "\\(phase: validation\\) while .* in all-reduce"));
  expect_all_others_end(outcome, -1, 0);
}
TEST_P(WatchdogFinds, AProblemOfATransport) {
  const Outcome outcome = run("transport", culprit(), kSeconds, Launcher::waits);
  EXPECT_THAT(outcome.output, ContainsRegex(named() + "has lost its network"));
  expect_all_others_end(outcome, -1, 0);
}

TEST(Watchdog, NamesARankThatLeavesEarly) {
  const Outcome outcome = run("leaves", 1);
  EXPECT_THAT(outcome.output, ContainsRegex("rank 1 \\([^)]+\\) has ended after collective [0-9]+, but rank"));
  expect_all_others_end(outcome, 1);
}

TEST(Watchdog, EndsAJobInWhichAllWait) {
  const Outcome outcome = run("hang", 0, kSeconds, Launcher::waits);
  EXPECT_THAT(outcome.output, ContainsRegex("has been waiting in all-reduce for [2-9] s, although every rank"));
  expect_all_others_end(outcome, -1, 0);
}

TEST(Watchdog, LeavesAnErrorToTheRankThatHasIt) {
  const Outcome outcome = run("throws", 1);
  EXPECT_THAT(outcome.output, AllOf(HasSubstr("there is no such file"), Not(HasSubstr("is dead"))));
  EXPECT_EQ(outcome.status, 1);
  EXPECT_LT(outcome.seconds, 40.0);
}

TEST(Watchdog, IsSilentWhenAllIsWell) {
  for (const char* what : {"none", "slow"}) {
    const Outcome outcome = run(what, 1, 4.0);
    EXPECT_EQ(outcome.status, 0) << outcome.output;
    EXPECT_THAT(outcome.output, AllOf(Not(HasSubstr("watchdog")), HasSubstr("rank 0 finished"),
                                      HasSubstr("rank 1 finished"), HasSubstr("rank 2 finished")));
  }
}

TEST(Watchdog, SaysThatItIsNotThereWhereRanksCannotConnect) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer itself needs the file descriptors that are taken away here";
#endif
  for (const int culprit : {0, 1}) {
    const Outcome outcome = run("unreachable", culprit);
    EXPECT_EQ(outcome.status, 0) << outcome.output;
    EXPECT_THAT(outcome.output, AllOf(HasSubstr("no watchdog in this run"), HasSubstr("rank 0 finished"),
                                      HasSubstr("rank 1 finished"), HasSubstr("rank 2 finished")));
  }
}

TEST(Watchdog, IsOffForOneRankAndOnRequest) {
  const auto local = make_local_communicator();
  EXPECT_EQ(start_watchdog(*local, 10.0), nullptr);
  const Outcome outcome = run("none", 1, 0.0);
  EXPECT_EQ(outcome.status, 0) << outcome.output;
}

}  // namespace
}  // namespace qn::test
