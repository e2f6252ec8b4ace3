// Configurations of the tests of core/config.h, and what reading them throws.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "core/config.h"
#include "support/temp_dir.h"

namespace qn {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

struct ScheduleConfig {
  double lr = 1.0;
  std::optional<int64_t> warmup;
  void visit(ConfigVisitor& v) {
    v.field("lr", lr, "peak learning rate");
    v.field("warmup", warmup, "updates of linear warm-up");
  }
  void validate(const ConfigChecker& c) const { c.check(lr > 0, "lr", "must be positive, got {}", lr); }
};

enum class Rule { nag, adam };

template <>
struct EnumNames<Rule> {
  static constexpr EnumName<Rule> kAll[] = {{Rule::nag, "nag"}, {Rule::adam, "adam"}};
};

struct OptimizerConfig {
  Rule name = Rule::nag, fallback = Rule::nag;
  double momentum = 0.99;
  ScheduleConfig schedule;
  void visit(ConfigVisitor& v) {
    v.choice("name", name, "update rule");
    v.choice("fallback", fallback, {Rule::nag}, "");
    v.field("momentum", momentum, "weight of the past gradients");
    v.section("schedule", schedule, "learning rate over time");
  }
};

struct EmptyConfig {
  void visit(ConfigVisitor&) {}
};

struct RunConfig {
  bool resume = true;
  int workers = 2;
  int64_t max_updates = 5100;
  std::string data = "data/wt2";
  std::vector<int64_t> sizes = {8, 4};
  std::vector<double> ratios;
  std::vector<std::string> groups = {"ffn", "attn"};
  std::vector<std::string> files;
  std::optional<bool> fused;
  std::optional<int> cores;
  std::optional<double> clip = 0.1;
  std::optional<std::string> device;
  OptimizerConfig optimizer;
  EmptyConfig extras;
  void visit(ConfigVisitor& v) {
    v.field("resume", resume, "continue from the newest checkpoint");
    v.field("workers", workers, "loader threads");
    v.field("max_updates", max_updates, "length of the run");
    v.field("data", data, "folder of the tokens");
    v.field("sizes", sizes, "block sizes");
    v.field("ratios", ratios, "");
    v.choice("groups", groups, {"ffn", "attn", "embed"}, "which weights are noised");
    v.field("files", files, "more inputs");
    v.field("fused", fused, "");
    v.field("cores", cores, "");
    v.field("clip", clip, "largest gradient norm");
    v.field("device", device, "null: whatever there is");
    v.section("optimizer", optimizer, "how weights are updated");
    v.section("extras", extras, "nothing yet");
  }
  void validate(const ConfigChecker& c) const {
    c.check(max_updates >= 0, "max_updates", "must not be negative, got {}", max_updates);
    c.check(workers <= 64, "workers", "must be at most 64, got {}", workers);
    c.check(optimizer.name != Rule::adam || optimizer.momentum < 0.995, "optimizer.momentum",
            "must be below 0.995 with adam, got {}", optimizer.momentum);
    c.check(!resume || data != "nowhere", "", "cannot resume without data");
  }
};

inline RunConfig from_text(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return read_config<RunConfig>(config_tree_from_text(text, "x.yaml", overrides));
}

/// The lines of the error that `action` throws.
template <class Action>
std::vector<std::string> problems(Action action) {
  try {
    action();
  } catch (const Error& e) {
    std::vector<std::string> lines;
    std::istringstream text(e.what());
    for (std::string line; std::getline(text, line);) lines.push_back(line);
    return lines;
  }
  return {};
}

inline std::vector<std::string> text_problems(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return problems([&] { from_text(text, overrides); });
}

class ConfigFiles : public testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& text) {
    std::filesystem::create_directories((dir_ / name).parent_path());
    std::ofstream(dir_ / name) << text;
    return (dir_ / name).string();
  }
  test::TempDir dir_;
};

}  // namespace qn
