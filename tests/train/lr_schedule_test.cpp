// Learning rates against fairseq's schedulers.
#include "train/lr_schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/hdf5_file.h"
#include "support/golden.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

ScheduleConfig config_of(const Hdf5File& file, const std::string& group) {
  const auto real = [&](const char* name) { return file.float_attribute(group, name); };
  ScheduleConfig c;
  c.lr = real("lr");
  c.warmup_updates = static_cast<int64_t>(real("warmup_updates"));
  if (file.string_attribute(group, "scheduler") == "cosine") {
    c.name = Schedule::cosine;
    c.min_lr = real("min_lr");
    c.t_mult = real("t_mult");
    c.lr_shrink = real("lr_shrink");
    if (real("warmup_init_lr_option") >= 0.0) c.warmup_init_lr = real("warmup_init_lr_option");
    if (real("lr_period_updates_option") >= 0.0) c.period_updates = static_cast<int64_t>(real("lr_period_updates"));
  } else {
    c.name = Schedule::polynomial;
    c.end_lr = real("end_learning_rate");
    c.power = real("power");
    c.total_updates = static_cast<int64_t>(real("total_num_update"));
  }
  return c;
}

int64_t max_updates(const Hdf5File& file, const std::string& group) {
  return file.has_attribute(group, "max_update") ? static_cast<int64_t>(file.float_attribute(group, "max_update")) : 0;
}

TEST(LrScheduleGolden, EveryCase) {
  QN_GOLDEN(path, "lr_schedules.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  const std::vector<std::string> groups = file.members("");
  ASSERT_FALSE(groups.empty());
  for (const std::string& group : groups) {
    const ScheduleConfig config = config_of(file, group);
    const auto n = file.read<int64_t>(group + "/n");
    const auto expected = file.read<double>(group + "/lr");
    for (size_t i = 0; i < n.size(); ++i)
      ASSERT_TRUE(close(learning_rate(config, n[i], max_updates(file, group)), expected[i], kScheduleTolerance))
          << group << " after " << n[i] << " updates";
  }
}

TEST(LrScheduleGolden, InverseSquareRoot) {
  QN_GOLDEN(path, "seq2seq.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  const std::vector<std::string> groups = file.members("schedule");
  EXPECT_GE(groups.size(), 4U);
  for (const std::string& name : groups) {
    const std::string group = "schedule/" + name;
    ScheduleConfig config;
    config.name = Schedule::inverse_sqrt;
    config.lr = file.float_attribute(group, "lr_configured");
    config.warmup_updates = file.int_attribute(group, "warmup_updates");
    config.warmup_init_lr = file.float_attribute(group, "warmup_init_lr");
    const auto n = file.read<int64_t>(group + "/n");
    const auto expected = file.read<double>(group + "/lr");
    for (size_t i = 0; i < n.size(); ++i)
      ASSERT_TRUE(close(learning_rate(config, n[i], 0), expected[i], kScheduleTolerance))
          << group << " after " << n[i] << " updates";
  }
}

TEST(LrSchedule, ALengthThatNobodyGivesIsMissedAtTheStart) {
  for (const Schedule name : all_values<Schedule>()) {
    ScheduleConfig c;
    c.name = name;
    if (name == Schedule::exponential) c.decay_updates = 1;
    EXPECT_NO_THROW(check_schedule(c, 10));
    if (name == Schedule::cosine || name == Schedule::polynomial)
      EXPECT_THROW(check_schedule(c, 0), UsageError);
    else
      EXPECT_NO_THROW(check_schedule(c, 0));
    c.period_updates = c.total_updates = 10;
    EXPECT_NO_THROW(check_schedule(c, 0));
  }
}

ScheduleConfig schedule(Schedule name, double lr, int64_t warmup) {
  ScheduleConfig c;
  c.name = name;
  c.lr = lr;
  c.warmup_updates = warmup;
  return c;
}

TEST(LrSchedule, OpenPeriodsComeFromTheNumberOfUpdates) {
  const ScheduleConfig cosine = schedule(Schedule::cosine, 1.0, 10);
  EXPECT_DOUBLE_EQ(learning_rate(cosine, 60, 110), 0.5) << "half of a cosine of 100 updates";
  EXPECT_THROW(learning_rate(cosine, 60, 0), Error);
  EXPECT_THROW(learning_rate(cosine, 60, 10), Error) << "no updates are left for the cosine";
  const ScheduleConfig polynomial = schedule(Schedule::polynomial, 1.0, 0);
  EXPECT_DOUBLE_EQ(learning_rate(polynomial, 25, 100), 0.75);
  EXPECT_DOUBLE_EQ(learning_rate(polynomial, 200, 100), 0.0);
  EXPECT_THROW(learning_rate(polynomial, 25, 0), Error);
}

TEST(LrSchedule, FixedAndInverseSquareRoot) {
  const ScheduleConfig fixed = schedule(Schedule::fixed, 2.0, 4);
  EXPECT_DOUBLE_EQ(learning_rate(fixed, 0, 0), 0.0);
  EXPECT_DOUBLE_EQ(learning_rate(fixed, 1, 0), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(fixed, 4, 0), 2.0);
  EXPECT_DOUBLE_EQ(learning_rate(fixed, 4000, 0), 2.0);
  ScheduleConfig inverse = schedule(Schedule::inverse_sqrt, 2.0, 100);
  inverse.warmup_init_lr = 1.0;
  EXPECT_DOUBLE_EQ(learning_rate(inverse, 0, 0), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(inverse, 50, 0), 1.5);
  EXPECT_DOUBLE_EQ(learning_rate(inverse, 100, 0), 2.0);
  EXPECT_DOUBLE_EQ(learning_rate(inverse, 400, 0), 1.0);
}

TEST(LrSchedule, ExponentialIsThatOfEfficientNets) {
  ScheduleConfig c = schedule(Schedule::exponential, 0.256, 0);
  c.decay_epochs = 2.4;
  c.warmup_epochs = 5.0;
  c = in_updates(c, 125);
  EXPECT_EQ(c.warmup_updates, 625);
  EXPECT_DOUBLE_EQ(learning_rate(c, 0, 0), 0.0);
  EXPECT_DOUBLE_EQ(learning_rate(c, 250, 0), 0.256 * 0.4);
  EXPECT_DOUBLE_EQ(learning_rate(c, 625, 0), 0.256 * 0.97 * 0.97) << "the decay has gone on in the warm-up";
  EXPECT_DOUBLE_EQ(learning_rate(c, 899, 0), 0.256 * 0.97 * 0.97);
  EXPECT_DOUBLE_EQ(learning_rate(c, 900, 0), 0.256 * 0.97 * 0.97 * 0.97);
  c.staircase = false;
  EXPECT_DOUBLE_EQ(learning_rate(c, 750, 0), 0.256 * std::pow(0.97, 2.5));
  c.min_lr = 0.2;
  EXPECT_DOUBLE_EQ(learning_rate(c, 100000, 0), 0.2);
  c = schedule(Schedule::exponential, 1.0, 0);
  c.decay_updates = 10;
  c.decay_rate = 0.5;
  EXPECT_DOUBLE_EQ(learning_rate(c, 9, 0), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(c, 30, 0), 0.125);
}

/// Periods of 0.1 epochs of 30 updates are a little more than 3 in floating point.
TEST(LrSchedule, StepsAreDueWhenTheirEpochsAreOver) {
  ScheduleConfig c = schedule(Schedule::exponential, 1.0, 0);
  c.decay_rate = 0.5;
  for (const double epochs : {0.1, 0.7, 2.4})
    for (const int64_t per_epoch : {30, 70, 1250}) {
      c.decay_epochs = epochs;
      c.decay_updates = {};
      const ScheduleConfig resolved = in_updates(c, per_epoch);
      const int64_t period = std::llround(epochs * static_cast<double>(per_epoch));
      for (const int64_t k : {1, 2, 7})
        EXPECT_EQ(learning_rate(resolved, k * period, 0), std::pow(0.5, k)) << epochs << " " << per_epoch;
    }
}

TEST(LrSchedule, EpochsNeedToBeKnown) {
  ScheduleConfig c = schedule(Schedule::cosine, 1.0, 7);
  EXPECT_EQ(in_updates(c, 0).warmup_updates, 7);
  c.warmup_updates = 0;
  c.warmup_epochs = 0.5;
  EXPECT_EQ(in_updates(c, 9).warmup_updates, 5);
  EXPECT_THAT([&] { in_updates(c, 0); },
              testing::ThrowsMessage<UsageError>(testing::HasSubstr("set schedule.warmup_updates in its place")));
  c.total_updates = 4;
  EXPECT_THAT(
      [&] { in_updates(c, 9); },
      testing::ThrowsMessage<UsageError>(testing::HasSubstr("schedule.total_updates = 4 must exceed the 5 updates")));
}

TEST(LrSchedule, WhatContradictsItselfIsRefused) {
  const auto expect = [](const std::string& text, const std::string& problem) {
    EXPECT_THAT([&] { read_config<ScheduleConfig>(config_tree_from_text(text, "x.yaml")); },
                testing::ThrowsMessage<Error>(testing::HasSubstr(problem)));
  };
  expect("name: exponential", "'decay_epochs' or decay_updates is needed by the exponential schedule");
  expect("{name: exponential, decay_epochs: 2.4, decay_updates: 9}", "'decay_epochs' and decay_updates both say");
  expect("{warmup_epochs: 5, warmup_updates: 9}", "'warmup_epochs' and warmup_updates = 9 both say");
  expect("decay_rate: 1.5", "'decay_rate' must be in (0, 1]");
  expect("decay_updates: 0", "'decay_updates' must be positive");
}

}  // namespace
}  // namespace qn::test
