// What the folder of a run says about how the run stands, and that a run's status file says what it does.
#include "report/run_health.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "core/file_io.h"
#include "support/temp_dir.h"
#include "train/progress.h"

namespace qn {
namespace {

using testing::HasSubstr;
using namespace std::chrono_literals;

std::string text_of(const std::filesystem::path& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// A run that made an update a second ago, and whose process holds the folder.
HealthSigns healthy() {
  HealthSigns s;
  s.now = 1e9;
  s.record.emplace();
  s.record->phase = "training";
  s.record->pid = 7;
  s.record->written = s.now - 1.0;
  s.record->progressed = s.record->written - 0.5;
  s.holder = FolderHolder{.owner = {}, .held = true};
  s.holder->owner.pid = "7";
  return s;
}

void expect(const HealthSigns& signs, HealthState state, const std::string& words = "") {
  const auto health = judge(signs);
  ASSERT_TRUE(health.has_value());
  EXPECT_STREQ(name_of(health->state), name_of(state));
  EXPECT_THAT(health->text, HasSubstr(words));
}

TEST(Judge, ARunThatMakesProgressIsWell) { expect(healthy(), HealthState::running, "running"); }

TEST(Judge, ProcessesThatAreGoneWereKilled) {
  HealthSigns s = healthy();
  s.holder->held = false;
  expect(s, HealthState::killed, "while training");
  s.record.reset();
  expect(s, HealthState::killed);
  s.holder.reset();
  expect(s, HealthState::unknown);
}

TEST(Judge, WhatARunSaidLastCounts) {
  HealthSigns s = healthy();
  s.holder.reset();
  s.record->condition = RunCondition::finished;
  expect(s, HealthState::finished);
  s.record->condition = RunCondition::stopped;
  expect(s, HealthState::stopped, "the same command goes on");
  s.record->condition = RunCondition::failed;
  s.record->message = "the disk burns";
  expect(s, HealthState::failed, "ended with an error: the disk burns");
  s.holder = FolderHolder{.owner = {}, .held = true};  // another process by now
  expect(s, HealthState::running, "starting");
}

TEST(Judge, WorkWithoutProgressIsStuckAfterTheRunsOwnPatience) {
  HealthSigns s = healthy();
  s.record->phase = "validating";
  s.record->patience = 100.0;
  s.record->progressed = s.record->written - 90.0;
  expect(s, HealthState::running);
  s.record->progressed = s.record->written - 110.0;
  expect(s, HealthState::stuck, "no progress while validating since");
  s.record->patience = 0.0;  // the run waits for ever: ten minutes are long all the same
  expect(s, HealthState::running);
  s.record->progressed = s.record->written - 700.0;
  expect(s, HealthState::stuck);
}

TEST(Judge, AFileThatDoesNotChangeIsWatchedBeforeItCounts) {
  HealthSigns s = healthy();
  s.record->written = s.now - 3600.0;  // or a clock that is an hour behind
  s.record->progressed = s.record->written;
  EXPECT_FALSE(judge(s).has_value());
  s.watched = true;
  expect(s, HealthState::silent, "not responding since");
  s.beats = true;
  expect(s, HealthState::running);
  s.record->written = s.record->progressed = s.now + 3600.0;  // ahead
  s.watched = s.beats = false;
  EXPECT_FALSE(judge(s).has_value());
}

TEST(Judge, LocksThatOtherMachinesDoNotSeeAreNotBelieved) {
  HealthSigns s = healthy();
  s.same_machine = false;
  s.holder->held = false;
  EXPECT_FALSE(judge(s).has_value());
  s.watched = s.beats = true;
  expect(s, HealthState::running);
  s.beats = false;
  expect(s, HealthState::killed);
}

TEST(Judge, ADamagedFileIsNamed) {
  const auto health = judge({.record = {}, .holder = {}, .damaged = true});
  ASSERT_TRUE(health.has_value());
  EXPECT_EQ(health->state, HealthState::unknown);
  EXPECT_THAT(health->text, HasSubstr("status.json, which tells how it ended, is damaged"));
}

TEST(Judge, ExitCodesTellThemApart) {
  EXPECT_EQ(exit_code_of(HealthState::running), 0);
  EXPECT_EQ(exit_code_of(HealthState::finished), 0);
  EXPECT_EQ(exit_code_of(HealthState::stopped), 3);
  EXPECT_EQ(exit_code_of(HealthState::silent), 4);
  EXPECT_EQ(exit_code_of(HealthState::stuck), 4);
  EXPECT_EQ(exit_code_of(HealthState::failed), 5);
  EXPECT_EQ(exit_code_of(HealthState::killed), 5);
}

TEST(StatusRecord, ReadsBackWhatWasWrittenAndNothingElse) {
  StatusRecord r;
  r.run = "0123";
  r.condition = RunCondition::failed;
  r.message = "a \"quoted\"\nreason \xff";
  r.update = int64_t{1} << 40;
  r.seconds_left = 12.5;
  const std::string text = to_json(r);
  const auto read = parse_status(text);
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->run, r.run);
  EXPECT_EQ(read->update, r.update);
  EXPECT_EQ(read->seconds_left, r.seconds_left);
  EXPECT_EQ(read->condition, r.condition);
  EXPECT_THAT(read->message, HasSubstr("a \"quoted\"\nreason "));
  for (size_t length = 0; length + 2 < text.size(); length += 7)
    EXPECT_FALSE(parse_status(text.substr(0, length)).has_value()) << length;
  for (const char* other : {"", "null", "[]", "{}", "{\"format\":\"quantnoise-status\",\"version\":1}",
                            "{\"format\":\"quantnoise-status\",\"version\":2,\"condition\":\"running\"}", "\xff\xfe"})
    EXPECT_FALSE(parse_status(other).has_value()) << other;
  std::string wrong = text;
  wrong.replace(wrong.find("\"update\":"), 10, "\"update\":\"");
  EXPECT_FALSE(parse_status(wrong).has_value());
}

TEST(StatusRecord, BelievesNoNumbersThatNobodyWrites) {
  const std::string text = to_json({});
  for (const char* number : {"999999999999999999999", "-7", "1.5", "18446744073709551615", "null"}) {
    std::string wrong = text;
    wrong.replace(wrong.find("\"update\":0"), 10, std::string("\"update\":") + number);
    EXPECT_FALSE(parse_status(wrong).has_value()) << number;
  }
  StatusRecord foreign;
  foreign.host = "\x1b[31mother\x07";
  EXPECT_EQ(parse_status(to_json(foreign))->host, "?[31mother?");
}

TEST(FormatClock, OfAnyNumber) {
  for (const double time : {-1.0, 1e300, 3e11, std::nan("")}) EXPECT_EQ(format_clock(time), "an unknown time") << time;
  EXPECT_THAT(format_clock(1'700'000'000.0), HasSubstr("2023-11-1"));
}

class RunStatusTest : public testing::Test {
 protected:
  std::optional<StatusRecord> written() const { return parse_status(text_of(dir_ / RunStatus::kFileName)); }
  template <typename Condition>
  bool soon(const Condition& condition) const {
    for (int i = 0; i < 400; ++i, std::this_thread::sleep_for(5ms))
      if (const auto record = written(); record && condition(*record)) return true;
    return false;
  }
  test::TempDir dir_;
};

TEST_F(RunStatusTest, TheFileFollowsTheRunAndItsBeatGoesOnWithoutIt) {
  RunStatus status(dir_.path(), {}, 20ms);
  status.enter("validating", 40);
  status.part_done(12, 40);
  EXPECT_TRUE(soon([](const StatusRecord& r) { return r.phase == "validating" && r.part == 12 && r.parts == 40; }));
  const double progressed = written()->progressed;
  const int64_t beat = written()->beat;
  EXPECT_TRUE(soon([&](const StatusRecord& r) { return r.beat > beat + 3; }));
  EXPECT_EQ(written()->progressed, progressed);
}

TEST_F(RunStatusTest, TheEndIsThereWhenItWasToldEvenWhereTheIntervalIsLong) {
  RunStatus status(dir_.path(), {}, 1h);
  status.end(RunCondition::stopped, "by a signal");
  EXPECT_EQ(written()->condition, RunCondition::stopped);
  EXPECT_EQ(written()->message, "by a signal");
}

TEST_F(RunStatusTest, AnExceptionThatLeavesIsAFailure) {
  try {
    const RunStatus status(dir_.path(), {}, 1h);
    throw std::runtime_error("");
  } catch (const std::runtime_error&) {
  }
  EXPECT_EQ(written()->condition, RunCondition::failed);
  { const RunStatus status(dir_.path(), {}, 1h); }
  EXPECT_EQ(written()->condition, RunCondition::running);  // it did not say
}

TEST_F(RunStatusTest, AFolderThatCannotBeWrittenCostsNothing) {
  RunStatus status(dir_ / "gone", {}, 5ms);
  status.enter("training");
  status.end(RunCondition::finished, "");
}

TEST_F(RunStatusTest, OneLooksAtARunOfThisProcess) {
  {
    const FolderLock lock(dir_.path(), "checkpoint.dir");
    StatusRecord start;
    start.pid = ::getpid();
    RunStatus status(dir_.path(), start, 20ms);
    EXPECT_TRUE(soon([](const StatusRecord&) { return true; }));
    EXPECT_EQ(look_at_run(dir_.path()).state, HealthState::running);
    status.end(RunCondition::finished, "");
    EXPECT_EQ(look_at_run(dir_.path()).state, HealthState::finished);
  }
  EXPECT_EQ(look_at_run(dir_.path()).state, HealthState::finished);
  std::ofstream(dir_ / RunStatus::kFileName) << "rubbish";
  EXPECT_EQ(look_at_run(dir_.path()).state, HealthState::unknown);
}

}  // namespace
}  // namespace qn
