// Folders of runs, whole, broken and huge, as one page.
#include "report/page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <set>

#include "core/error.h"
#include "support/temp_dir.h"
#include "train/metrics_log.h"

namespace qn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using namespace std::string_literals;

/// Every tag that is opened is closed, in order; returns what is wrong.
std::string markup_problem(const std::string& html) {
  const std::set<std::string> single{"meta", "input", "!DOCTYPE"};
  std::vector<std::string> open;
  for (size_t at = html.find('<'); at != std::string::npos; at = html.find('<', at + 1)) {
    const size_t end = html.find('>', at);
    if (end == std::string::npos) return "an open tag";
    const std::string tag = html.substr(at + 1, end - at - 1);
    if (tag.ends_with("/")) continue;
    if (tag.starts_with("/")) {
      if (open.empty() || open.back() != tag.substr(1)) return fmt::format("</{}> at {}", tag, at);
      open.pop_back();
    } else if (const std::string name = tag.substr(0, tag.find(' ')); !single.contains(name)) {
      open.push_back(name);
    }
  }
  return open.empty() ? "" : "not closed: " + open.back();
}

class Page : public testing::Test {
 protected:
  std::filesystem::path folder(const std::string& name) {
    std::filesystem::create_directories(dir_ / name);
    return dir_ / name;
  }
  /// A training of `updates` updates, as the trainer records it.
  std::filesystem::path trained(const std::string& name, int64_t updates, double lr = 0.5) {
    MetricsLog log(folder(name) / "metrics.jsonl", false);
    log.write({{"kind", "start"s},
               {"update", int64_t{0}},
               {"resumed", false},
               {"command", "train"s},
               {"host", "node<1>"s},
               {"ranks", int64_t{2}},
               {"max_updates", 2 * updates},
               {"samples", "tokens"s},
               {"parameters", NamedNumbers{{"ffn", 1e6}, {"other", 1e3}}},
               {"config", fmt::format("seed: 1\noptimizer:\n  lr: {}\n", lr)},
               {"time", 1.7e9}});
    for (int64_t u = 1; u <= updates; ++u) {
      const double loss = 5.0 + 10.0 / std::sqrt(static_cast<double>(u)) + 0.1 * std::sin(static_cast<double>(u));
      log.write({{"kind", "train"s},
                 {"update", u},
                 {"epoch", int64_t{1}},
                 {"loss", u == 7 ? NAN : loss},
                 {"ppl", std::exp2(loss)},
                 {"lr", lr},
                 {"grad_norm", u == 9 ? 77.0 : 0.5},
                 {"clipped", true},
                 {"tokens", int64_t{4096}},
                 {"seconds", 0.5},
                 {"memory", int64_t{1} << 30},
                 {"time", 1.7e9 + static_cast<double>(u)}});
      if (u % 50 == 0)
        log.write({{"kind", "valid"s},
                   {"update", u},
                   {"epoch", int64_t{1}},
                   {"loss", loss},
                   {"ppl", std::exp2(loss)},
                   {"best_loss", loss},
                   {"tokens", int64_t{1000}},
                   {"training_seconds", 0.5 * static_cast<double>(u)}});
    }
    return dir_ / name;
  }
  std::filesystem::path quantized(const std::string& name) {
    MetricsLog log(folder(name) / "metrics.jsonl", false);
    log.write({{"kind", "start"s},
               {"update", int64_t{0}},
               {"command", "quantize"s},
               {"samples", "tokens"s},
               {"parameters", NamedNumbers{{"ffn", 1e6}}}});
    for (int64_t stage = 1; stage <= 2; ++stage) {
      for (int64_t i = 1; i <= 15; ++i)
        log.write({{"kind", "kmeans"s},
                   {"update", stage},
                   {"stage", stage},
                   {"iteration", i},
                   {"objective", NamedNumbers{{"fc1", 3.0 + 1.0 / static_cast<double>(i)}, {"fc2", 2.0}}}});
      log.write({{"kind", "stage"s},
                 {"update", stage},
                 {"stage", stage},
                 {"weights", int64_t{2}},
                 {"relative_error", 0.25},
                 {"valid_ppl", 60.5},
                 {"seconds", 1.5}});
      log.write({{"kind", "valid"s}, {"update", stage + 1}, {"ppl", 55.5}, {"best_ppl", 55.5}});
    }
    log.write({{"kind", "packed"s},
               {"update", int64_t{3}},
               {"file", "x/model.safetensors"s},
               {"bytes", int64_t{123456}},
               {"original_bytes", int64_t{4000000}},
               {"packed_ppl", 55.75},
               {"bytes_of_groups", NamedNumbers{{"ffn", 123000.0}, {"header", 456.0}}}});
    return dir_ / name;
  }

  test::TempDir dir_;
};

TEST_F(Page, ShowsEveryQuantityOfTwoKindsOfRuns) {
  const std::vector<RunData> runs = read_runs({trained("plain", 200), trained("no<i>se", 200, 0.25), quantized("ipq")});
  const std::string page = report_page(runs, "today");
  EXPECT_EQ(markup_problem(page), "");
  for (const char* words : {"Perplexity",
                            "Learning rate",
                            "Norm of the gradient",
                            "Throughput",
                            "Memory",
                            "k-means of stage 2",
                            "bits per token",
                            "tokens per second",
                            "updates",
                            "seconds of training",
                            "8,192",
                            "123,456",
                            "32.4",
                            "60.5",
                            "55.75",
                            "optimizer.lr",
                            "no&lt;i&gt;se",
                            "node&lt;1&gt;",
                            "after finetuning",
                            "1,001,000"})
    EXPECT_THAT(page, HasSubstr(words));
  // Nothing from elsewhere.
  for (const char* words : {"http", "<script", "<link", "src=", "@import", "url(", "no<i>se", "nan", "inf,"})
    EXPECT_THAT(page, Not(HasSubstr(words)));
  EXPECT_THAT(config_differences(runs).front().values, ElementsAre("0.5", "0.25", ""));
}

TEST_F(Page, LargeRunsStaySmallPages) {
  std::vector<std::filesystem::path> folders;
  for (int i = 0; i < 4; ++i) folders.push_back(trained(fmt::format("big{}", i), 25000));
  const std::string page = report_page(read_runs(folders), "today");
  EXPECT_LT(page.size(), size_t{2} << 20);
  EXPECT_EQ(markup_problem(page), "");
  EXPECT_THAT(page, HasSubstr("opacity=\"0.22\""));  // bands
}

TEST_F(Page, BrokenAndUnfinishedRunsCanBeRead) {
  const auto broken = trained("broken", 20);
  std::ofstream(broken / "metrics.jsonl", std::ios::app)
      << "rubbish\n[1,2]\n{\"kind\":7}\n{\"kind\":\"train\",\"update\":\"x\",\"loss\":[1]}\n{\"kind\":\"kmeans\","
         "\"objective\":3}\n"
      << "{\"kind\":\"train\",\"update\":21,\"lo";  // under way
  const auto empty = folder("empty");
  std::ofstream(empty / "metrics.jsonl") << "";
  const std::vector<RunData> runs = read_runs({broken, empty});
  EXPECT_EQ(runs[0].unreadable, 3);
  const std::string page = report_page(runs, "today");
  EXPECT_EQ(markup_problem(page), "");
  EXPECT_THAT(page, HasSubstr("lines of metrics.jsonl that are no records"));
  EXPECT_EQ(markup_problem(report_page(read_runs({empty}), "")), "");
}

/// Whatever a line has or lacks: what tells no update is no record, and what else is missing leaves gaps.
TEST_F(Page, RecordsMayLackWhatOthersHave) {
  const auto odd = folder("odd");
  std::ofstream(odd / "metrics.jsonl") << "{\"kind\":\"start\",\"command\":\"train\",\"time\":1e300}\n"
                                          "{\"kind\":\"train\",\"update\":\"4\",\"loss\":2.5,\"seconds\":1}\n"
                                          "{\"kind\":\"train\",\"updat\":5,\"loss\":2.5,\"seconds\":1}\n"
                                          "{\"kind\":\"valid\",\"loss\":2.5}\n"
                                          "{\"kind\":\"stage\",\"stage\":1}\n";
  EXPECT_EQ(read_runs({odd})[0].unreadable, 4);
  EXPECT_EQ(markup_problem(report_page(read_runs({odd}), "")), "");
  std::ofstream(odd / "metrics.jsonl", std::ios::app)
      << "{\"kind\":\"train\",\"update\":6,\"loss\":2.25,\"seconds\":\"a\"}\n"
         "{\"kind\":\"train\",\"update\":7,\"loss\":2.25,\"seconds\":null}\n"
         "{\"kind\":\"valid\",\"update\":7,\"loss\":2.0,\"best_loss\":2.0}\n";
  const std::vector<RunData> runs = read_runs({odd});
  EXPECT_EQ(runs[0].train.rows(), 2U);
  EXPECT_EQ(runs[0].unreadable, 4);
  const std::string page = report_page(runs, "today");
  EXPECT_EQ(markup_problem(page), "");
  EXPECT_THAT(page, HasSubstr("an unknown time"));
}

TEST_F(Page, RunsOfOneNameAreToldApart) {
  const std::vector<RunData> runs = read_runs({trained("a/run", 3), trained("b/run", 3)});
  EXPECT_EQ(runs[0].name, "a/run");
  EXPECT_EQ(runs[1].name, "b/run");
}

TEST_F(Page, OtherFoldersAreNamed) {
  const auto message = [](const std::filesystem::path& path) {
    try {
      read_run(path);
      return ""s;
    } catch (const Error& error) {
      return std::string(error.what());
    }
  };
  EXPECT_THAT(message(dir_ / "missing"), HasSubstr("there is no folder"));
  EXPECT_THAT(message(folder("other")), HasSubstr("has no metrics.jsonl"));
  std::ofstream(dir_ / "file") << "x";
  EXPECT_THAT(message(dir_ / "file"), HasSubstr("is no folder"));
}

}  // namespace
}  // namespace qn
