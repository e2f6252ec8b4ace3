// Importances of inputs: what is measured, on any number of ranks, and that watching leaves no trace.
#include "compress/input_importance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "small_net.h"
#include "support/capture.h"
#include "support/test_comm.h"

namespace qn::test {
namespace {

const std::vector<std::string> kAll{"net.embed.weight", "net.fc1.weight", "net.fc2.weight"};

std::vector<int32_t> ids_of(int pass) {
  std::vector<int32_t> ids;
  for (int i = 0; i < 3 + pass % 4; ++i) ids.push_back((7 * pass + 5 * i) % SmallNet::kWords);
  return ids;
}

void evaluate(SmallNet& net, int pass) {
  Arena arena;
  Tape tape(cpu_kernels(), arena, DType::f32, {});
  net.forward(tape, ids_of(pass));
}

AcrossRanks across(Communicator& comm) {
  return {.max = [&comm](std::span<double> values) { comm.all_reduce_max(values); },
          .sum = [&comm](std::span<int64_t> values) { comm.all_reduce_sum(values); }};
}

/// After passes 0 ... 9, shared out over the ranks.
ColumnImportances measured(SmallNet& net, Communicator& ranks, double exponent) {
  const InputStatistics statistics(net, kAll);
  for (int pass = 0; pass < 10; ++pass)
    if (pass % ranks.size() == ranks.rank()) evaluate(net, pass);
  return statistics.importances(exponent, across(ranks));
}

TEST(InputImportance, IsTheMeanSquareOfWhatIsMultiplied) {
  SmallNet net;
  const ColumnImportances found = measured(net, comm(), 1.0);
  ASSERT_EQ(found.size(), 3u) << "the table is the output's matrix, too";
  std::vector<double> squares(SmallNet::kWidth, 0.0);
  const std::vector<float> table = net.parameters().values_of(*net.weight("embed").dense());
  for (int pass = 0; pass < 10; ++pass)
    for (const int32_t id : ids_of(pass))
      for (size_t c = 0; c < squares.size(); ++c)
        squares[c] += std::pow(table[static_cast<size_t>(id) * squares.size() + c], 2);
  const double mean = std::accumulate(squares.begin(), squares.end(), 0.0) / static_cast<double>(squares.size());
  const std::vector<float>& fc1 = found.at("net.fc1.weight");
  for (size_t c = 0; c < squares.size(); ++c) EXPECT_NEAR(fc1[c], squares[c] / mean, 1e-6 * squares[c] / mean) << c;
  const std::vector<float> half = measured(net, comm(), 0.5).at("net.fc1.weight");
  EXPECT_NEAR(half[3] / half[5], std::sqrt(fc1[3] / fc1[5]), 1e-5);
}

TEST(InputImportance, RanksMakeNoDifference) {
  SmallNet net;
  const auto local = make_local_communicator();
  EXPECT_EQ(measured(net, comm(), 1.0), measured(net, *local, 1.0));
}

TEST(InputImportance, WatchingLeavesNoTrace) {
  SmallNet net, other;
  const Representation* before = &net.weight("fc1").representation();
  {
    const InputStatistics statistics(net, kAll);
    EXPECT_NE(&net.weight("fc1").representation(), before);
    EXPECT_EQ(logits(net), logits(other));
  }
  EXPECT_EQ(&net.weight("fc1").representation(), before);
  EXPECT_EQ(logits(net), logits(other));
}

TEST(InputImportance, NothingSeenIsNothingKnown) {
  SmallNet net;
  const InputStatistics statistics(net, kAll);
  EXPECT_TRUE(statistics.importances(1.0, across(comm())).empty());
}

TEST(InputImportance, InputsOfADivergedModelAreNamed) {
  SmallNet net;
  net.weight("embed").dense()->value.as<float>()[7] = 1e30f;  // of word 0, which is in every rank's first pass
  const InputStatistics statistics(net, {"net.fc1.weight"});
  evaluate(net, 0);
  EXPECT_THAT(error_of([&] { statistics.importances(1.0, across(comm())); }),
              testing::HasSubstr("the inputs of 'net.fc1.weight' are not finite"));
}

}  // namespace
}  // namespace qn::test
