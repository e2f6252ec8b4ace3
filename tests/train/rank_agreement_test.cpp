// Ranks that are given other things than the others, or come to other results, are named.
#include "train/rank_agreement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "support/test_comm.h"
#include "train/tiny_run.h"

namespace qn::test {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(RankValues, TheSmallerPartIsNamed) {
  const RankValues agreed{.values = {"a", "a"}, .hosts = {"x", "y"}};
  EXPECT_TRUE(agreed.agree());
  const RankValues one{.values = {"b", "a", "a", "a"}, .hosts = {"n0", "n1", "n2", "n3"}};
  EXPECT_FALSE(one.agree());
  EXPECT_EQ(one.others(), "rank 0 on n0");
  const RankValues two{.values = {"a", "b", "a", "c", "a"}, .hosts = {"n0", "n1", "n2", "n3", "n4"}};
  EXPECT_EQ(two.others(), "rank 1 on n1, rank 3 on n3");
  const RankValues tie{.values = {"a", "b"}, .hosts = {"n0", "n1"}};
  EXPECT_EQ(tie.others(), "rank 1 on n1");  // somebody has to be
}

/// What every rank gets to read; the last rank is the odd one.
std::string problem_of(const std::function<void(bool odd)>& check) {
  try {
    check(comm().rank() == comm().size() - 1);
    return {};
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(RankAgreement, ConfigurationsDataAndParametersThatDifferAreNamed) {
  const bool several = comm().size() > 1;
  const std::string last = fmt::format("rank {} on ", comm().size() - 1);
  const auto expect_named = [&](const std::string& problem, const std::string& words) {
    EXPECT_EQ(problem.empty(), !several);
    if (!several) return;
    EXPECT_THAT(problem, HasSubstr(last));
    EXPECT_THAT(problem, HasSubstr(words));
    if (comm().size() > 2) {
      EXPECT_THAT(problem, Not(HasSubstr("rank 0 on")));
    }
  };
  EXPECT_EQ(problem_of([&](bool) { check_same_program(comm(), "seed: 1\n"); }), "");
  expect_named(problem_of([&](bool odd) { check_same_program(comm(), odd ? "seed: 2\n" : "seed: 1\n"); }),
               "seed: 1 -> 2");

  const TempDir dir;
  prepare_tiny_corpus(dir.path());
  const RunConfig config = tiny_config(dir.path(), "run");
  const auto task = make_task(config);
  task->open_training();
  EXPECT_EQ(problem_of([&](bool) { check_same_task(comm(), *task); }), "");

  Module& module = task->module();
  module.allocate(DType::f32, cpu_kernels());
  module.parameters().initialize(1);
  const auto check = [&](bool) { check_same_parameters(comm(), module.parameters(), cpu_kernels(), 17); };
  EXPECT_EQ(problem_of(check), "");
  const bool odd = comm().rank() == comm().size() - 1;
  if (several && odd) module.parameters().values().as<float>()[5] += 1e-7f;
  expect_named(problem_of(check), "after update 17 the ranks have parted company");
}

TEST(RankAgreement, OtherDataOfOneRankEndTheRunAtItsStart) {
  if (comm().size() == 1) GTEST_SKIP() << "one rank agrees with itself";
  const TempDir dir;  // of this rank
  prepare_tiny_corpus(dir.path());
  RunConfig config = tiny_config(dir.path(), "run");
  const bool odd = comm().rank() == comm().size() - 1;
  if (odd)
    std::filesystem::copy_file(dir / "data/test.bin", dir / "data/valid.bin",
                               std::filesystem::copy_options::overwrite_existing);
  if (odd)
    std::filesystem::copy_file(dir / "data/test.idx", dir / "data/valid.idx",
                               std::filesystem::copy_options::overwrite_existing);
  if (odd) std::filesystem::remove(dir / "data/valid.sum");
  const auto task = make_task(config);
  task->open_training();
  const std::string problem = problem_of([&](bool) { check_same_task(comm(), *task); });
  EXPECT_THAT(problem, HasSubstr("the validation data"));
  EXPECT_THAT(problem, Not(HasSubstr("the training data")));
  EXPECT_THAT(problem, HasSubstr(fmt::format("rank {} on ", comm().size() - 1)));
}

}  // namespace
}  // namespace qn::test
