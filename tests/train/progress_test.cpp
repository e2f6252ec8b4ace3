#include "train/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include <cerrno>
#include <cmath>
#include <csignal>
#include <fstream>
#include <sstream>
#include <thread>

#include "core/error.h"
#include "support/capture.h"
#include "support/temp_dir.h"
#include "train/metrics_log.h"
#include "train/task.h"

namespace qn {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

/// What remains on a screen after text with carriage returns and "erase to end of line".
std::vector<std::string> screen(const std::string& output) {
  std::vector<std::string> lines(1);
  size_t column = 0;
  for (size_t i = 0; i < output.size(); ++i) {
    std::string& line = lines.back();
    if (output[i] == '\r') {
      column = 0;
    } else if (output[i] == '\n') {
      lines.emplace_back();
      column = 0;
    } else if (output.compare(i, 3, "\x1b[K") == 0) {
      line.resize(column);
      i += 2;
    } else {
      line.resize(std::max(line.size(), column + 1), ' ');
      line[column++] = output[i];
    }
  }
  return lines;
}

/// Log lines and the terminal share one text, as they share stderr.
class Progress : public testing::Test {
 protected:
  void SetUp() override {
    before_ = spdlog::default_logger();
    auto logger = std::make_shared<spdlog::logger>("", std::make_shared<spdlog::sinks::ostream_sink_mt>(output_));
    logger->set_pattern("%L %v");
    spdlog::set_default_logger(logger);
  }
  void TearDown() override { spdlog::set_default_logger(before_); }

  ProgressOptions options(bool terminal) {
    ProgressOptions o;
    o.terminal = terminal;
    o.columns = 200;
    o.log_interval = 10;
    o.unit = "tok";
    o.clock = [this] { return now_; };
    o.draw = [this](std::string_view text) { output_ << text; };
    return o;
  }
  UpdateStats stats(int64_t update) const {
    UpdateStats s;
    s.update = update;
    s.max_updates = 5100;
    s.epoch = 3;
    s.samples = 4120;
    s.metrics = "ppl 278.8";
    s.loss_base2 = 8.123;
    s.lr = 0.231;
    s.grad_norm = 0.42;
    s.clip_share = 0.125;
    s.seconds = 1;
    return s;
  }
  std::vector<std::string> lines() const { return screen(output_.str()); }

  std::shared_ptr<spdlog::logger> before_;
  std::ostringstream output_;
  double now_ = 100;
};

TEST_F(Progress, PlainLinesAtTheFirstEveryTenthAndLastUpdate) {
  ProgressReporter progress(options(false));
  for (int64_t u = 1523; u <= 1541; ++u) progress.report(stats(u));
  UpdateStats last = stats(5100);
  last.peak_rss_bytes = int64_t{3} << 29;
  progress.report(last);
  progress.finish();
  EXPECT_THAT(lines(),
              ElementsAre("I epoch 3 | 1523/5100 updates | ETA 00:59:37 | 4,120 tok/s | loss 8.123 | ppl 278.8 | lr "
                          "0.231 | gnorm 0.42 | clip 12%",
                          HasSubstr("| 1530/5100 updates | ETA 00:59:30 |"), HasSubstr("| 1540/5100 updates |"),
                          testing::AllOf(HasSubstr("| 5100/5100 updates | ETA 00:00:00 |"),
                                         EndsWith("| clip 12% | memory 1.50 GiB")),
                          ""));
}

TEST_F(Progress, FinishShowsWhatWasNotShownYetOnce) {
  ProgressReporter progress(options(false));
  progress.report(stats(11));
  progress.report(stats(12));
  progress.finish();
  progress.finish();
  EXPECT_THAT(lines(), ElementsAre(HasSubstr("11/5100"), HasSubstr("12/5100"), ""));
}

TEST_F(Progress, UnknownLengthAndStrangeNumbers) {
  ProgressReporter progress(options(false));
  UpdateStats s = stats(7);
  s.max_updates = 0;
  s.seconds = 0;
  s.loss_base2 = NAN;
  s.grad_norm = INFINITY;
  s.metrics = "";
  progress.report(s);
  EXPECT_THAT(lines(), ElementsAre("I epoch 3 | 7 updates | loss nan | lr 0.231 | gnorm inf | clip 12%", ""));
}

TEST(Metrics, AreWrittenInDigitsThatAreWorthReading) {
  const auto text = [](double value) {
    return text_of(std::vector<Metric>{{.name = "loss", .value = 1.5}, {.name = "ppl", .value = value, .digits = 1}});
  };
  EXPECT_EQ(text(278.84), "loss 1.5000 | ppl 278.8");
  EXPECT_EQ(text(1 << 30), "loss 1.5000 | ppl 1.07e+09");
  EXPECT_EQ(text(NAN), "loss 1.5000 | ppl nan");
  EXPECT_EQ(text_of(std::vector<Metric>{}), "");
}

TEST_F(Progress, ShareOfTheMeasuredRateFollowsTheSpeed) {
  ProgressOptions o = options(false);
  o.full_speed = 8240;
  ProgressReporter progress(o);
  progress.report(stats(1));
  EXPECT_THAT(lines(), ElementsAre(HasSubstr("| 4,120 tok/s | MFU 50.0% | loss"), ""));
}

TEST_F(Progress, SpeedForgetsWhatIsOlderThanTheWindow) {
  ProgressOptions o = options(false);
  o.log_interval = 1;
  o.window_seconds = 4;
  ProgressReporter progress(o);
  UpdateStats s = stats(1);
  s.samples = 1000;
  s.seconds = 10;  // a slow first update
  progress.report(s);
  s.seconds = 1;
  for (s.update = 2; s.update <= 6; ++s.update) progress.report(s);
  EXPECT_THAT(lines(), ElementsAre(HasSubstr("ETA 14:09:50 | 100 tok/s"), HasSubstr("| 182 tok/s"),
                                   HasSubstr("| 250 tok/s"), HasSubstr("| 308 tok/s"),
                                   HasSubstr("ETA 01:24:55 | 1,000 tok/s"), HasSubstr("| 1,000 tok/s"), ""));
}

TEST_F(Progress, TerminalLineRewritesItselfAndIsThrottled) {
  ProgressReporter progress(options(true));
  progress.report(stats(1));
  EXPECT_THAT(lines(), ElementsAre(StartsWith("epoch 3 | 1/5100 updates")));
  now_ += 0.05;
  progress.report(stats(2));
  EXPECT_THAT(lines(), ElementsAre(StartsWith("epoch 3 | 1/5100 updates")));
  now_ += 0.06;
  progress.report(stats(3));
  EXPECT_THAT(lines(), ElementsAre(StartsWith("epoch 3 | 3/5100 updates")));
  progress.report(stats(4));
  progress.finish();
  EXPECT_THAT(lines(), ElementsAre(StartsWith("epoch 3 | 4/5100 updates"), ""));
  progress.report(stats(5100));
  EXPECT_THAT(lines(), ElementsAre(HasSubstr("| 4/5100"), HasSubstr("| 5100/5100 updates")));
}

TEST_F(Progress, TerminalLineFitsTheWidth) {
  ProgressOptions o = options(true);
  o.columns = 20;
  ProgressReporter progress(o);
  progress.report(stats(10));
  EXPECT_THAT(lines(), ElementsAre(StartsWith("10/5100 | loss ")));
  EXPECT_EQ(lines()[0].size(), 19U);
  progress.report(stats(5100));
  EXPECT_THAT(lines(), ElementsAre(StartsWith("5100/5100 | loss")));
}

TEST_F(Progress, EightyColumnsKeepRateAndGradientNorm) {
  ProgressOptions o = options(true);
  o.columns = 80;
  ProgressReporter progress(o);
  UpdateStats s = stats(286000);
  s.max_updates = 286000;
  s.metrics = "ppl 86591.7";
  s.lr = 1.23e-7;
  s.grad_norm = 0.0123;
  progress.report(s);
  ASSERT_EQ(lines().size(), 1U);
  EXPECT_LE(lines()[0].size(), 79U);
  for (const char* part : {"286000/286000", "ETA ", "loss ", "lr 1.23e-07", "gnorm 0.0123"})
    EXPECT_THAT(lines()[0], HasSubstr(part));
}

TEST_F(Progress, OtherWorkShowsHowFarItIsByTime) {
  double now = 0.0;
  ProgressOptions o = options(false);
  o.clock = [&] { return now; };
  o.log_seconds = 10;
  ProgressReporter progress(o);
  progress.begin_work("validating");
  for (int64_t done = 0; done <= 100; ++done, now += 0.25) progress.work(done, 400);
  progress.end_work();
  progress.work(300, 400);  // nobody's
  EXPECT_THAT(lines(), ElementsAre("I validating: 40 of 400, 10%, 00:01:30 left",
                                   "I validating: 80 of 400, 20%, 00:01:20 left", ""));
}

TEST_F(Progress, SlowUpdatesAreShownByTime) {
  double now = 0.0;
  ProgressOptions o = options(false);
  o.clock = [&] { return now; };
  o.log_seconds = 60;
  ProgressReporter progress(o);
  for (int64_t update = 1; update <= 8; ++update, now += 25.0) progress.report(stats(update));
  EXPECT_THAT(lines(), ElementsAre(HasSubstr(" 1/5100"), HasSubstr(" 4/5100"), HasSubstr(" 7/5100"), ""));
}

TEST_F(Progress, MessagesAndForeignLogLinesAppearAboveTheLine) {
  {
    ProgressReporter progress(options(true));
    progress.message("before");
    progress.report(stats(1));
    progress.message("saved {checkpoint}");
    spdlog::warn("from elsewhere");
    spdlog::debug("not at this level");
    EXPECT_THAT(lines(), ElementsAre("I before", "I saved {checkpoint}", "W from elsewhere", StartsWith("epoch 3")));
  }
  spdlog::info("afterwards");
  EXPECT_THAT(lines(), ElementsAre("I before", "I saved {checkpoint}", "W from elsewhere", StartsWith("epoch 3"),
                                   "I afterwards", ""));
  ProgressReporter again(options(true));
  again.report(stats(2));
  again.message("once");
  EXPECT_THAT(lines(), testing::Contains("I once").Times(1));
  EXPECT_THAT(lines().back(), StartsWith("epoch 3 | 2/5100"));
}

TEST_F(Progress, OtherThreadsMayLogWhileTheLineIsDrawn) {
  constexpr int kLines = 200;
  ProgressOptions o = options(true);
  o.redraw_seconds = 0;
  ProgressReporter progress(o);
  progress.report(stats(1));
  std::thread other([] {
    for (int i = 0; i < kLines; ++i) spdlog::info("line {}", i);
  });
  for (int64_t u = 2; u < kLines; ++u) progress.report(stats(u));
  other.join();
  const std::vector<std::string> all = lines();
  ASSERT_EQ(all.size(), size_t{kLines + 1});
  for (int i = 0; i < kLines; ++i) EXPECT_EQ(all[static_cast<size_t>(i)], fmt::format("I line {}", i));
  EXPECT_THAT(all.back(), StartsWith("epoch 3 | 199/5100"));
}

TEST_F(Progress, RejectsAnIntervalOfZero) {
  ProgressOptions o = options(false);
  o.log_interval = 0;
  EXPECT_THROW(ProgressReporter{o}, Error);
}

TEST(FormatDuration, HoursAndDays) {
  EXPECT_EQ(format_duration(0), "00:00:00");
  EXPECT_EQ(format_duration(2530.4), "00:42:10");
  EXPECT_EQ(format_duration(86399), "23:59:59");
  EXPECT_EQ(format_duration(2 * 86400 + 3 * 3600 + 12 * 60), "2d 03:12:00");
  EXPECT_EQ(format_duration(NAN), "--:--:--");
  EXPECT_EQ(format_duration(-1), "--:--:--");
}

TEST(PeakRss, IsPlausible) {
  EXPECT_GT(peak_rss_bytes(), int64_t{1} << 20);
  EXPECT_LT(peak_rss_bytes(), int64_t{1} << 40);
}

class MetricsLogTest : public testing::Test {
 protected:
  std::string text() const {
    std::ifstream file(path_);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void put(const std::string& content) { std::ofstream(path_) << content; }

  test::TempDir dir_;
  std::filesystem::path path_ = dir_ / "run/metrics.jsonl";
};

TEST_F(MetricsLogTest, WritesOneObjectPerLineAtOnce) {
  MetricsLog log(path_, false);
  log.write({{"kind", "train"}, {"update", 12}, {"loss", 0.1}, {"lr", 1.0}, {"clipped", true}, {"gnorm", NAN}});
  EXPECT_EQ(text(), "{\"kind\":\"train\",\"update\":12,\"loss\":0.1,\"lr\":1.0,\"clipped\":true,\"gnorm\":null}\n");
  log.write({{"note", "\"q\"\n\xff"}, {"big", int64_t{1} << 62}, {"inf", -INFINITY}});
  EXPECT_THAT(text(), EndsWith("\n{\"note\":\"\\\"q\\\"\\n\xEF\xBF\xBD\",\"big\":4611686018427387904,\"inf\":null}\n"));
  EXPECT_THROW(log.write({{"a", 1}, {"a", 2}}), InternalError);
}

TEST_F(MetricsLogTest, AppendKeepsAndCreateEmpties) {
  { MetricsLog(path_, true).write({{"update", 1}}); }
  { MetricsLog(path_, true).write({{"update", 2}}); }
  EXPECT_EQ(text(), "{\"update\":1}\n{\"update\":2}\n");
  { MetricsLog log(path_, false); }
  EXPECT_THAT(text(), IsEmpty());
}

TEST_F(MetricsLogTest, RepairsTheLastLineAfterACrash) {
  const struct {
    const char *before, *after;
  } kCases[] = {
      {"{\"update\":1}\n{\"upda", "{\"update\":1}\n"},
      {"{\"update\":1}\n{\"update\":2}", "{\"update\":1}\n{\"update\":2}\n"},
      {"{\"upd", ""},
      {"{\"update\":1}\n", "{\"update\":1}\n"},
      {"", ""},
  };
  for (const auto& c : kCases) {
    MetricsLog(path_, false);
    put(c.before);
    MetricsLog(path_, true).write({{"update", 9}});
    EXPECT_EQ(text(), std::string(c.after) + "{\"update\":9}\n") << c.before;
  }
}

TEST_F(MetricsLogTest, TruncatesWhatAResumedRunWritesAgain) {
  MetricsLog log(path_, false);
  log.write({{"kind", "train"}, {"update", 10}});
  log.write({{"kind", "valid"}, {"update", 10}});
  log.write({{"kind", "train"}, {"update", 20}});
  log.write({{"kind", "resume"}, {"update", 20}});
  log.write({{"kind", "valid"}, {"update", 20}});
  log.write({{"kind", "train"}});
  EXPECT_EQ(log.truncate_after(20, 0), 0);
  EXPECT_EQ(log.truncate_after(15, 0), 2);
  log.write({{"kind", "train"}, {"update", 16}});
  EXPECT_EQ(text(),
            "{\"kind\":\"train\",\"update\":10}\n{\"kind\":\"valid\",\"update\":10}\n"
            "{\"kind\":\"resume\",\"update\":20}\n{\"kind\":\"train\"}\n{\"kind\":\"train\",\"update\":16}\n");
  EXPECT_EQ(log.truncate_after(0, 0), 3);
  EXPECT_EQ(text(), "{\"kind\":\"resume\",\"update\":20}\n{\"kind\":\"train\"}\n");
}

TEST_F(MetricsLogTest, StagesThatAResumedRunRepeatsAreRemoved) {
  MetricsLog log(path_, false);
  log.write({{"kind", "stage"}, {"update", 0}, {"stage", 1}});
  log.write({{"kind", "train"}, {"update", 4}});
  log.write({{"kind", "stage"}, {"update", 4}, {"stage", 2}});  // killed before the checkpoint that has it
  EXPECT_EQ(log.truncate_after(4, 1), 1);
  EXPECT_EQ(log.truncate_after(4, 1), 0);
  EXPECT_EQ(text(), "{\"kind\":\"stage\",\"update\":0,\"stage\":1}\n{\"kind\":\"train\",\"update\":4}\n");
}

TEST_F(MetricsLogTest, AFullDiskCostsNoRecord) {
  const test::LogCapture logged;
  MetricsLog log(path_, false);
  log.write({{"update", 1}});
  inject_file_faults([](FileStep, const std::filesystem::path&) { return ENOSPC; });
  log.write({{"update", 2}});
  log.write({{"update", 3}});
  EXPECT_FALSE(log.flush());
  EXPECT_EQ(log.held_back(), 2);
  EXPECT_EQ(text(), "{\"update\":1}\n");
  inject_file_faults({});
  EXPECT_TRUE(log.flush());
  EXPECT_EQ(text(), "{\"update\":1}\n{\"update\":2}\n{\"update\":3}\n");
  const std::string messages = logged.text();
  EXPECT_EQ(messages.find("held back until"), messages.rfind("held back until")) << "said once";
  EXPECT_THAT(messages, HasSubstr("can be written again: 2 records"));
}

/// What a disk that fills up within a record does: the limit of a file's size comes to the same.
TEST_F(MetricsLogTest, ARecordIsThereWholeOrNotAtAll) {
  MetricsLog log(path_, false);
  log.write({{"update", 1}});
  const auto previous = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit{};
  getrlimit(RLIMIT_FSIZE, &limit);
  const rlimit small{.rlim_cur = 20, .rlim_max = limit.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  log.write({{"update", 2}});
  EXPECT_EQ(text(), "{\"update\":1}\n");
  setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, previous);
  EXPECT_TRUE(log.flush());
  EXPECT_EQ(text(), "{\"update\":1}\n{\"update\":2}\n");
}

TEST_F(MetricsLogTest, FailuresNameTheFile) {
  try {
    MetricsLog log(dir_.path(), false);
    FAIL() << "a folder was opened for writing";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr(dir_.path().string()));
  }
}

}  // namespace
}  // namespace qn
