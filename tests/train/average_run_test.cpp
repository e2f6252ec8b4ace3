// Runs with moving averages (train.ema): what is validated, saved, resumed and quantized.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "shared_dir.h"
#include "support/test_comm.h"
#include "support/tolerance.h"
#include "tiny_run.h"
#include "train/checkpoint_file.h"

namespace qn::test {
namespace {

using std::filesystem::path;

RunConfig averaged_config(const path& dir, const std::string& name, OptimizerKind optimizer = OptimizerKind::nag) {
  RunConfig c = tiny_config(dir, name);
  c.optimizer.become(optimizer);
  c.optimizer.weight_decay = 1e-3;
  c.optimizer.decay = DecayedParameters::weights;
  if (optimizer == OptimizerKind::rmsprop_tf) c.schedule.lr = 0.01;
  c.train.ema = {.decay = 0.9, .warmup = true, .start_update = 2};
  return c;
}

std::vector<float> values_of(const StateDict& state, const Module& module, const std::string& prefix) {
  std::vector<float> values;
  for (const auto& p : module.parameters().all()) {
    const std::span<const float> tensor = state.tensor(prefix + p->name).span<float>();
    values.insert(values.end(), tensor.begin(), tensor.end());
  }
  return values;
}

path last_of(const RunConfig& config) { return path(config.checkpoint.dir) / "checkpoint_last.h5"; }

class AverageRun : public testing::Test {
 protected:
  /// Runs to the end, on all ranks.
  static std::unique_ptr<TinyTrainer> run(const RunConfig& config, TrainerOptions options = {}) {
    auto trainer = std::make_unique<TinyTrainer>(config, comm(), std::move(options));
    EXPECT_EQ(trainer->run(), Outcome::finished);
    return trainer;
  }
  /// Stops after so many updates, on all ranks.
  static void run_until(const RunConfig& config, int update) {
    TinyTrainer trainer(config, comm(), {.stop_requested = stop_at(update)});
    EXPECT_EQ(trainer.run(), Outcome::stopped);
    EXPECT_EQ(trainer.update(), update);
  }

  SharedDir dir_;
};

TEST_F(AverageRun, AveragesAreWhatIsValidatedSavedAndBest) {
  RunConfig config = averaged_config(dir_.path(), "averaged");
  config.train.validate_every_updates = 1;
  const auto averaged = run(config);
  config.checkpoint.dir = (dir_.path() / "plain").string();
  config.train.ema = {};
  const auto plain = run(config);
  EXPECT_EQ(parameter_values(averaged->model()), parameter_values(plain->model())) << "training knows nothing of it";
  const double loss = averaged->validate_now().loss;
  EXPECT_NE(loss, plain->validate_now().loss);

  for (const char* name : {"checkpoint_last.h5", "checkpoint_best.h5"}) {
    const path file = dir_.path() / "averaged" / name;
    const ModelFile stored = load_model_file(file);
    EXPECT_THAT(stored.state, testing::HasSubstr("moving averages of its weights"));
    const StateDict state = load_state(file);
    EXPECT_EQ(values_of(state, averaged->model(), "parameters/"), parameter_values(stored.module()));
    const Evaluation found = averaged->task().evaluate_module(stored.module(), cpu_kernels(), comm(), DType::f32);
    if (std::string(name) == "checkpoint_best.h5") {
      EXPECT_EQ(found.decisive().value, state.real("best_loss"));
      continue;
    }
    EXPECT_EQ(found.loss, loss);
    EXPECT_EQ(values_of(state, averaged->model(), "trained/parameters/"), parameter_values(averaged->model()));
  }
}

TEST_F(AverageRun, ResumesBitByBit) {
  for (const OptimizerKind optimizer : {OptimizerKind::sgd, OptimizerKind::rmsprop_tf}) {
    SCOPED_TRACE(name_of(optimizer));
    const std::string name = name_of(optimizer);
    const auto straight = run(averaged_config(dir_.path(), "straight_" + name, optimizer));
    for (const int stop : {1, 7}) {
      const RunConfig config = averaged_config(dir_.path(), fmt::format("{}_{}", name, stop), optimizer);
      run_until(config, stop);
      const auto resumed = run(config);
      EXPECT_EQ(parameter_values(resumed->model()), parameter_values(straight->model())) << stop;
      EXPECT_EQ(resumed->validate_now().loss, straight->validate_now().loss) << stop;
    }
  }
}

TEST_F(AverageRun, MayBeTurnedOnAndOffInBetween) {
  const RunConfig averaged = averaged_config(dir_.path(), "off");
  RunConfig plain = averaged;
  plain.train.ema = {};
  run_until(averaged, 5);
  const auto off = run(plain);
  EXPECT_FALSE(load_state(last_of(plain)).tensors.contains("trained/parameters/decoder.layers.0.fc1.weight"));

  RunConfig on = averaged_config(dir_.path(), "on");
  plain.checkpoint.dir = on.checkpoint.dir;
  run_until(plain, 5);
  on.train.ema = {.decay = 0.5, .warmup = false, .start_update = 0};
  const auto then = run(on);
  EXPECT_EQ(parameter_values(then->model()), parameter_values(off->model())) << "the same training";
  EXPECT_NE(then->validate_now().loss, off->validate_now().loss);
}

TEST_F(AverageRun, QuantizationAndFinetuningStartFromTheAverages) {
  const RunConfig dense = averaged_config(dir_.path(), "dense");
  run(dense);
  const ModelFile stored = load_model_file(last_of(dense));
  const RunConfig ipq = tiny_ipq_config(dir_.path(), "ipq", last_of(dense));
  TinyTrainer quantizing(ipq, comm(), {.quantize = true, .stop_requested = {}});
  EXPECT_EQ(parameter_values(quantizing.model()), parameter_values(stored.module()));
  RunConfig finetuned = tiny_config(dir_.path(), "finetuned");
  finetuned.checkpoint.init_from = last_of(dense).string();
  TinyTrainer finetuning(finetuned, comm(), {});
  EXPECT_EQ(parameter_values(finetuning.model()), parameter_values(stored.module()));
}

TEST_F(AverageRun, RanksTrainTheSame) {
  for (const OptimizerKind optimizer : {OptimizerKind::sgd, OptimizerKind::rmsprop_tf}) {
    SCOPED_TRACE(name_of(optimizer));
    const std::string name = name_of(optimizer);
    const auto together = run(averaged_config(dir_.path(), "together_" + name, optimizer));
    const auto local = make_local_communicator();
    TinyTrainer alone(averaged_config(dir_.path(), fmt::format("alone_{}_{}", name, comm().rank()), optimizer), *local,
                      {});
    ASSERT_EQ(alone.run(), Outcome::finished);
    EXPECT_TRUE(close(parameter_values(together->model()), parameter_values(alone.model()), kTrajectoryTolerance));
    EXPECT_TRUE(close(together->validate_now().loss, alone.validate_now().loss, kSummationTolerance));
  }
}

}  // namespace
}  // namespace qn::test
