// The same training on any number of ranks: masks, noise, data order and k-means do not depend on it.
#include <gtest/gtest.h>

#include "shared_dir.h"
#include "support/test_comm.h"
#include "support/tolerance.h"
#include "tiny_run.h"

namespace qn::test {
namespace {

/// Summation order moves parameters by rounding; a few updates amplify it a little.
constexpr double kTrajectory = 1e-4;

/// Share of positions at which two code tables differ.
double differing_share(std::span<const uint16_t> a, std::span<const uint16_t> b) {
  EXPECT_EQ(a.size(), b.size());
  int64_t different = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) different += a[i] != b[i] ? 1 : 0;
  return static_cast<double>(different) / static_cast<double>(a.size());
}

std::string mine(const std::string& name) { return fmt::format("{}_{}", name, comm().rank()); }

void expect_training_matches_one_rank(const std::function<void(RunConfig&)>& change, double parameters, double loss) {
  const SharedDir dir;
  const auto config = [&](const std::string& name) {
    RunConfig c = tiny_config(dir.path(), name);
    change(c);
    return c;
  };
  TinyTrainer together(config("together"), comm(), {});
  ASSERT_EQ(together.run(), Outcome::finished);
  const auto local = make_local_communicator();
  TinyTrainer alone(config(mine("alone")), *local, {});
  ASSERT_EQ(alone.run(), Outcome::finished);
  EXPECT_TRUE(close(parameter_values(together.model()), parameter_values(alone.model()), parameters));
  EXPECT_TRUE(close(together.validate_now().loss, alone.validate_now().loss, loss));
}

TEST(RankEquality, TrainingMatchesOneRank) {
  expect_training_matches_one_rank([](RunConfig&) {}, kTrajectory, kSummationTolerance);
}

TEST(RankEquality, TrainingInBf16MatchesOneRank) {
  expect_training_matches_one_rank([](RunConfig& c) { c.train.precision = Precision::bf16_always; },
                                   kBfloat16TrajectoryTolerance, kBfloat16TrajectoryTolerance);
}

/// Ranks leave out the same layers of the same micro-batches, and agree on which parameters got no gradient in a whole
/// update: two micro-batches leave a layer out together often enough.
TEST(RankEquality, LayerDropMatchesOneRank) {
  for (const MissingGradient missing : {MissingGradient::zero, MissingGradient::skip})
    for (const bool overlap : {false, true}) {
      SCOPED_TRACE(name_of(missing));
      const auto change = [&](RunConfig& c) {
        c.model.layers = 3;
        c.model.layerdrop = 0.6;
        c.optimizer.missing_gradient = missing;
        c.optimizer.weight_decay = 0.01;
        c.comm.overlap = overlap;
        c.comm.bucket_mib = 0.01;
        c.train.micro_batches = 2;
      };
      expect_training_matches_one_rank(change, kTrajectory, kSummationTolerance);
    }
}

TEST(RankEquality, ResumeOnAnotherNumberOfRanks) {
  const SharedDir dir;
  const auto local = make_local_communicator();
  TinyTrainer alone(tiny_config(dir.path(), mine("alone")), *local, {});
  alone.run();
  const RunConfig config = tiny_config(dir.path(), "moved");
  if (comm().is_root()) {
    TinyTrainer first(config, *local, {.quantize = false, .resume = true, .stop_requested = stop_at(5)});
    ASSERT_EQ(first.run(), Outcome::stopped);
  }
  comm().barrier();
  TinyTrainer rest(config, comm(), {});
  ASSERT_EQ(rest.update(), 5);
  rest.run();
  EXPECT_TRUE(close(parameter_values(rest.model()), parameter_values(alone.model()), kTrajectory));
}

/// One rank after the other is told to give the second update of a run up; the rest of its ranks goes through it.
TEST(RankEquality, AnUpdateAbandonedByOneRankIsAbandonedByAll) {
  for (const bool overlap : {false, true}) {
    const SharedDir dir;
    RunConfig config = tiny_config(dir.path(), "straight");
    config.comm.overlap = overlap;
    config.comm.bucket_mib = 0.01;
    TinyTrainer straight(config, comm(), {});
    ASSERT_EQ(straight.run(), Outcome::finished);
    config.checkpoint.dir = (dir.path() / "abandoned").string();
    int runs = 0;
    const int micro_batches = std::max(1, 4 / comm().size());  // of a rank in an update
    for (Outcome outcome = Outcome::stopped; outcome == Outcome::stopped; ++runs) {
      ASSERT_LT(runs, 100);
      const bool asked = comm().rank() == runs % comm().size();
      const int question = asked ? micro_batches + 1 + runs % micro_batches : 0;
      TinyTrainer part(config, comm(),
                       {.quantize = false, .resume = true, .stop_requested = {}, .abandon_update = stop_at(question)});
      outcome = part.run();
      if (outcome == Outcome::stopped) continue;
      EXPECT_EQ(parameter_values(part.model()), parameter_values(straight.model())) << overlap;
    }
    EXPECT_GT(runs, 2);
  }
}

TEST(RankEquality, QuantizationMatchesOneRank) {
  const SharedDir dir;
  if (comm().is_root()) {
    const auto local = make_local_communicator();
    TinyTrainer(tiny_config(dir.path(), "dense"), *local, {}).run();
  }
  comm().barrier();
  const auto from = dir.path() / "dense" / "checkpoint_last.h5";
  TinyTrainer together(tiny_ipq_config(dir.path(), "ipq", from), comm(),
                       {.quantize = true, .resume = true, .stop_requested = {}});
  ASSERT_EQ(together.run(), Outcome::finished);
  const auto local = make_local_communicator();
  TinyTrainer alone(tiny_ipq_config(dir.path(), mine("ipq_alone"), from), *local,
                    {.quantize = true, .resume = true, .stop_requested = {}});
  ASSERT_EQ(alone.run(), Outcome::finished);
  const double share = differing_share(all_codes(together.model()), all_codes(alone.model()));
  RecordProperty("differing_codes", fmt::format("{:.6f}", share));
  EXPECT_LT(share, 0.01);
  EXPECT_TRUE(close(together.validate_now().loss, alone.validate_now().loss, kTrajectory));
}

/// Blocks that move and averages are the same on every rank, so that all go on alike.
TEST(RankEquality, FinetuningMatchesOneRank) {
  const SharedDir dir;
  if (comm().is_root()) {
    const auto local = make_local_communicator();
    TinyTrainer(tiny_config(dir.path(), "dense"), *local, {}).run();
  }
  comm().barrier();
  const auto config = [&](const std::string& name) {
    RunConfig c = tiny_config(dir.path(), name);
    c.checkpoint.init_from = (dir.path() / "dense" / "checkpoint_last.h5").string();
    c.ipq.kmeans_iterations = 6;
    c.ipq.stage_updates = {6, 4, 4};
    c.ipq.centroid_gradient = CentroidGradient::root;
    c.ipq.centroids = ValueStorage::int8;
    c.ipq.row_scales = {"."};
    c.ipq.input_exponent = {1.0};
    c.ipq.calibration_batches = 6;
    c.ipq.average_decay = 0.8;
    c.ipq.reassign_updates = 2;
    c.ipq.reassign_share = 0.05;
    return c;
  };
  TinyTrainer together(config("ipq"), comm(), {.quantize = true, .resume = true, .stop_requested = {}});
  ASSERT_EQ(together.run(), Outcome::finished);
  std::vector<double> loss{together.validate_now().loss, -together.validate_now().loss};
  comm().all_reduce_max(loss);
  EXPECT_EQ(loss[0], -loss[1]);
  const auto local = make_local_communicator();
  TinyTrainer alone(config(mine("ipq_alone")), *local, {.quantize = true, .resume = true, .stop_requested = {}});
  ASSERT_EQ(alone.run(), Outcome::finished);
  EXPECT_LT(differing_share(all_codes(together.model()), all_codes(alone.model())), 0.02);
  EXPECT_TRUE(close(together.validate_now().loss, alone.validate_now().loss, kTrajectory));
}

}  // namespace
}  // namespace qn::test
