// Whole runs with noise that imitates product quantization: stopped and resumed anywhere, on any number of ranks, in
// training and between the stages of quantization.
#include <gtest/gtest.h>

#include "compress/replacement_noise.h"
#include "quant/product_quantizer.h"
#include "shared_dir.h"
#include "support/capture.h"
#include "support/test_comm.h"
#include "support/tolerance.h"
#include "tasks/model_file.h"
#include "tiny_run.h"
#include "train/checkpoint_file.h"

namespace qn::test {
namespace {

class NoiseRun : public testing::Test {
 protected:
  NoiseConfig exact() const {
    NoiseConfig c;
    c.pq = 0.3;
    c.form = BlockNoise::exact;
    c.codebook_updates = 4;
    c.codebook_iterations = 3;
    return c;
  }
  RunConfig config(const std::string& name, const NoiseConfig& noise) const {
    RunConfig c = tiny_config(dir_.path(), name);
    c.quant_noise = noise;
    return c;
  }
  std::vector<float> straight(const NoiseConfig& noise) {
    TinyTrainer trainer(config("straight", noise), *local_, {});
    EXPECT_EQ(trainer.run(), Outcome::finished);
    const std::vector<float> values = parameter_values(trainer.model());
    std::filesystem::remove_all(dir_ / "straight");
    return values;
  }
  /// Stopped at every one of `stops` questions, each time from the checkpoint.
  void expect_resumes(const NoiseConfig& noise, const std::vector<int>& stops) {
    const std::vector<float> expected = straight(noise);
    RunConfig c = config("stopped", noise);
    for (const int stop : stops) {
      c.checkpoint.dir = (dir_ / fmt::format("stopped{}", stop)).string();
      {
        TinyTrainer first(c, *local_, {.quantize = false, .resume = true, .stop_requested = stop_at(stop)});
        ASSERT_EQ(first.run(), Outcome::stopped) << stop;
      }
      TinyTrainer second(c, *local_, {});
      ASSERT_EQ(second.run(), Outcome::finished);
      EXPECT_EQ(parameter_values(second.model()), expected) << "stopped at question " << stop;
    }
  }
  const SharedDir dir_;
  std::unique_ptr<Communicator> local_ = make_local_communicator();
};

/// The first codebooks take 15 iterations, with 14 questions between them, the others three.
TEST_F(NoiseRun, ResumesBitForBitAlsoInsideARefresh) {
  if (comm().size() > 1) GTEST_SKIP() << "of one rank";
  expect_resumes(exact(), {1, 9, 14, 15, 17, 18, 19, 20, 21, 23, 26});
}

TEST_F(NoiseRun, AStopInsideTheFirstRefreshIsSavedThere) {
  if (comm().size() > 1) GTEST_SKIP() << "of one rank";
  const RunConfig c = config("stopped", exact());
  TinyTrainer(c, *local_, {.quantize = false, .resume = true, .stop_requested = stop_at(5)}).run();
  const StateDict state = load_state(dir_ / "stopped" / "checkpoint_last.h5");
  EXPECT_EQ(state.integer("update"), 0);
  EXPECT_EQ(state.integer("noise/kmeans_iteration"), 5);
}

TEST_F(NoiseRun, AnAbandonedUpdateLeavesNoTrace) {
  if (comm().size() > 1) GTEST_SKIP() << "of one rank";
  const std::vector<float> expected = straight(exact());
  for (const int question : {1, 17, 18}) {  // before and after the refresh of the fifth update
    const RunConfig c = config(fmt::format("abandoned{}", question), exact());
    {
      TinyTrainer first(c, *local_,
                        {.quantize = false, .resume = true, .stop_requested = {}, .abandon_update = stop_at(question)});
      ASSERT_EQ(first.run(), Outcome::stopped);
    }
    TinyTrainer second(c, *local_, {});
    ASSERT_EQ(second.run(), Outcome::finished);
    EXPECT_EQ(parameter_values(second.model()), expected) << question;
  }
}

TEST_F(NoiseRun, OtherFormsAndWindowsResumeBitForBit) {
  if (comm().size() > 1) GTEST_SKIP() << "of one rank";
  for (const BlockNoise form : {BlockNoise::zero, BlockNoise::mean})
    for (const NoiseUnit unit : {NoiseUnit::block, NoiseUnit::cluster}) {
      NoiseConfig noise = exact();
      noise.form = form;
      noise.unit = unit;
      noise.start = 0.25;
      noise.rate_schedule = RateSchedule::linear;
      noise.rates = {"attn=0.1"};
      expect_resumes(noise, {2, 5});
      std::filesystem::remove_all(dir_ / "stopped2");
      std::filesystem::remove_all(dir_ / "stopped5");
    }
}

TEST_F(NoiseRun, NoiseChangesTheTrainingOnlyInItsWindow) {
  if (comm().size() > 1) GTEST_SKIP() << "of one rank";
  NoiseConfig late = exact(), none = exact();
  late.start = 0.5;
  none.pq = 0.0;
  const auto half = [&](const NoiseConfig& noise, int updates) {
    RunConfig c = config("half", noise);
    TinyTrainer trainer(c, *local_, {.quantize = false, .resume = false, .stop_requested = stop_at(updates)});
    trainer.run();
    const std::vector<float> values = parameter_values(trainer.model());
    std::filesystem::remove_all(dir_ / "half");
    return values;
  };
  EXPECT_EQ(half(late, 6), half(none, 6));
  EXPECT_NE(straight(late), straight(none));
  NoiseConfig over = exact();
  over.end = 0.999;  // of 12 updates: all
  EXPECT_EQ(straight(over), straight(exact()));
}

TEST_F(NoiseRun, AWindowNeedsARunOfKnownLength) {
  if (comm().size() > 1) GTEST_SKIP() << "of one rank";
  NoiseConfig late = exact();
  late.start = 0.5;
  RunConfig c = config("open", late);
  c.train.max_updates = 0;
  c.train.patience = 1;
  c.schedule.name = Schedule::fixed;
  EXPECT_NE(error_of([&] { TinyTrainer(c, *local_, {}); }).find("train.max_updates"), std::string::npos);
}

TEST_F(NoiseRun, AnyNumberOfRanksTrainsTheSame) {
  for (const NoiseUnit unit : {NoiseUnit::block, NoiseUnit::cluster}) {
    NoiseConfig noise = exact();
    noise.unit = unit;
    TinyTrainer together(config(fmt::format("together{}", name_of(unit)), noise), comm(), {});
    ASSERT_EQ(together.run(), Outcome::finished);
    TinyTrainer alone(config(fmt::format("alone{}{}", name_of(unit), comm().rank()), noise), *local_, {});
    ASSERT_EQ(alone.run(), Outcome::finished);
    EXPECT_TRUE(close(parameter_values(together.model()), parameter_values(alone.model()), 1e-3));
    EXPECT_TRUE(close(together.validate_now().loss, alone.validate_now().loss, 1e-5));
  }
}

/// Weights of later stages keep their noise while earlier ones are finetuned, wherever the run was stopped.
TEST_F(NoiseRun, StaysWithTheWeightsOfLaterStages) {
  if (comm().size() > 1) GTEST_SKIP() << "of one rank";
  TinyTrainer(config("dense", exact()), *local_, {}).run();
  const auto ipq = [&](const std::string& name) {
    RunConfig c = tiny_ipq_config(dir_.path(), name, dir_ / "dense" / "checkpoint_last.h5");
    c.quant_noise = exact();
    c.quant_noise.start = 0.5;
    c.ipq.dense_softmax = true;
    return c;
  };
  TinyTrainer whole(ipq("whole"), *local_, {.quantize = true, .resume = true, .stop_requested = {}});
  ASSERT_EQ(whole.run(), Outcome::finished);
  const RunConfig c = ipq("stopped");
  int runs = 0;
  for (Outcome outcome = Outcome::stopped; outcome == Outcome::stopped; ++runs) {
    ASSERT_LT(runs, 60);
    TinyTrainer part(c, *local_, {.quantize = true, .resume = true, .stop_requested = stop_at(3)});
    outcome = part.run();
    if (runs == 5) {
      int64_t noisy = 0;
      for (const auto& w : part.model().weights().all())
        if (const auto* noise = dynamic_cast<const ReplacementNoise*>(&w->representation()))
          noisy += noise->rate() > 0.0 ? 1 : 0;
      EXPECT_GT(noisy, 0);
    }
    if (outcome == Outcome::finished) {
      EXPECT_EQ(parameter_values(part.model()), parameter_values(whole.model()));
      EXPECT_EQ(all_codes(part.model()), all_codes(whole.model()));
    }
  }
  EXPECT_GT(runs, 5);
}

std::vector<float> values_of_entry(const StateDict& state, const std::string& name) {
  const auto values = state.tensor(name).span<float>();
  return {values.begin(), values.end()};
}

/// With one iteration of k-means, codes are those of the centroids that it started from.
TEST_F(NoiseRun, StagesStartFromTheCodebooksOfTheNoise) {
  if (comm().size() > 1) GTEST_SKIP() << "of one rank";
  TinyTrainer(config("dense", exact()), *local_, {}).run();
  const std::string from = dir_ / "dense" / "checkpoint_last.h5";
  const StateDict dense = load_state(from);
  RunConfig c = tiny_ipq_config(dir_.path(), "ipq", from);
  c.ipq.kmeans_iterations = 1;
  c.ipq.updates_per_stage = 0;
  TinyTrainer trainer(c, *local_, {.quantize = true, .resume = true, .stop_requested = {}});
  ASSERT_EQ(trainer.run(), Outcome::finished);
  int64_t compared = 0;
  for (const auto& weight : trainer.model().weights().all()) {
    const QuantizedTensor* quantized = weight->representation().quantized();
    const std::string& name = weight->name();
    if (quantized == nullptr || !dense.tensors.contains("noise/centroids/" + name)) continue;
    const std::vector<float> blocks = values_of_entry(dense, "parameters/" + name);
    const std::vector<float> centroids = values_of_entry(dense, "noise/centroids/" + name);
    const int64_t d = dense.tensor("noise/centroids/" + name).shape[-1];
    EXPECT_EQ(quantized->codes, encode(blocks.data(), quantized->rows, quantized->cols, d, centroids).codes) << name;
    ++compared;
  }
  EXPECT_GT(compared, 10);
}

TEST_F(NoiseRun, StagesThatStartFromCodebooksResumeBitForBitOnAnyNumberOfRanks) {
  if (comm().is_root()) TinyTrainer(config("dense", exact()), *local_, {}).run();
  comm().barrier();
  const auto ipq = [&](const std::string& name) {
    return tiny_ipq_config(dir_.path(), name, dir_ / "dense" / "checkpoint_last.h5");
  };
  TinyTrainer whole(ipq(fmt::format("whole{}", comm().rank())), *local_,
                    {.quantize = true, .resume = true, .stop_requested = {}});
  ASSERT_EQ(whole.run(), Outcome::finished);
  TinyTrainer together(ipq("together"), comm(), {.quantize = true, .resume = true, .stop_requested = {}});
  ASSERT_EQ(together.run(), Outcome::finished);
  EXPECT_TRUE(close(parameter_values(together.model()), parameter_values(whole.model()), 1e-3));
  if (comm().size() > 1) return;
  Outcome outcome = Outcome::stopped;
  for (int runs = 0; outcome == Outcome::stopped; ++runs) {
    ASSERT_LT(runs, 40);
    TinyTrainer part(ipq("stopped"), *local_, {.quantize = true, .resume = true, .stop_requested = stop_at(5)});
    outcome = part.run();
    if (outcome == Outcome::finished) {
      EXPECT_EQ(parameter_values(part.model()), parameter_values(whole.model()));
      EXPECT_EQ(all_codes(part.model()), all_codes(whole.model()));
    }
  }
}

}  // namespace
}  // namespace qn::test
