#include "train/slow_ranks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/capture.h"
#include "support/test_comm.h"

namespace qn::test {
namespace {

TEST(SlowRanks, AreThoseFarFromTheMedianOfTheOthers) {
  const std::vector<double> seconds{0.1, 1.0, 0.12, 0.0};
  EXPECT_NEAR(slowness_of(seconds, 1), 1.0 / 0.12, 1e-12);
  EXPECT_EQ(slowness_of(seconds, 0), 0.0);
  EXPECT_EQ(slowness_of(seconds, 2), 0.0);
  EXPECT_EQ(slowness_of(seconds, 3), 0.0) << "a rank without micro-batches";
  EXPECT_EQ(slowness_of(std::vector<double>{5.0}, 0), 0.0);
  EXPECT_EQ(slowness_of(std::vector<double>{5.0, 0.0}, 0), 0.0) << "nothing to compare with";
  EXPECT_EQ(slowness_of(std::vector<double>{0.25, 0.1}, 0), 0.0);
}

TEST(SlowRanks, WarnOnceOfThemselves) {
  SlowRanks ranks(comm());
  const bool slow = comm().size() > 1 && comm().rank() == comm().size() - 1;
  for (int round = 0; round < 2; ++round) {
    const LogCapture capture;
    ranks.add(slow ? 20.0 : 2.0, 10);
    ranks.compare();
    const std::string log = capture.text();
    if (slow && round == 0)
      EXPECT_THAT(log, testing::HasSubstr("is slow: its micro-batches take 10.0 times as long"));
    else
      EXPECT_EQ(log, "");
  }
}

}  // namespace
}  // namespace qn::test
