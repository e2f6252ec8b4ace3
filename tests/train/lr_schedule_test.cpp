// Learning rates against fairseq's schedulers.
#include "train/lr_schedule.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace qn::test
