// Runs that diverge: nothing of them passes for a success, and the message says where it began and how to go on.
#include "train/divergence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "guarded_kernels.h"
#include "ops/host_access.h"
#include "support/temp_dir.h"
#include "support/test_comm.h"
#include "tiny_run.h"
#include "train/checkpoint_file.h"

namespace qn::test {
namespace {

using testing::HasSubstr;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class DivergenceTest : public testing::Test {
 protected:
  void SetUp() override { prepare_tiny_corpus(dir_.path()); }

  /// Sets one element of a parameter.
  static void set(LanguageModel& model, const std::string& name, int64_t element, float value) {
    Parameter* p = model.parameters().find(name);
    ASSERT_NE(p, nullptr) << name;
    edit_on_host(model.parameters().kernels(), p->value,
                 [&](const Tensor& host) { host.as<float>()[element] = value; });
  }

  static std::string error_of(TinyTrainer& trainer) {
    try {
      trainer.run();
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }

  /// Of updates.
  std::vector<nlohmann::json> records(const std::string& run) {
    std::ifstream in(dir_ / run / "metrics.jsonl");
    std::vector<nlohmann::json> found;
    for (std::string line; std::getline(in, line);)
      if (nlohmann::json record = nlohmann::json::parse(line); record["kind"] == "train")
        found.push_back(std::move(record));
    return found;
  }

  TempDir dir_;
  std::unique_ptr<Communicator> comm_ = make_local_communicator();
};

TEST_F(DivergenceTest, NamesAWeightThatIsNotFinite) {
  RunConfig config = tiny_config(dir_.path(), "run");
  TinyTrainer trainer(config, *comm_, {});
  set(trainer.model(), "decoder.layers.1.fc1.weight", 5, kNan);
  const std::string error = error_of(trainer);
  EXPECT_THAT(error, HasSubstr("the gradient of update 1 is not finite"));
  EXPECT_THAT(error, HasSubstr("micro-batch 1 of update 1: decoder.layers.1.fc1.weight itself is not finite (nan at "
                               "element 5 of"));
  EXPECT_THAT(error, HasSubstr("there is no checkpoint from before"));
}

TEST_F(DivergenceTest, NamesTheOpThatOverflows) {
  RunConfig config = tiny_config(dir_.path(), "run");
  config.quant_noise.pq = 0.0;
  for (const Kernels* kernels : {&cpu_kernels(), &guarded_kernels()}) {  // with a device, the next update has begun
    TinyTrainer trainer(config, *comm_, {.quantize = false, .resume = true, .stop_requested = {}, .kernels = kernels});
    for (int64_t i = 0; i < 32; ++i) set(trainer.model(), "decoder.layers.0.fc2.weight", i, 3e38f);
    const std::string error = error_of(trainer);
    EXPECT_THAT(error,
                HasSubstr("micro-batch 1 of update 1: the first values that are not finite come out of its forward "
                          "pass, in matmul with decoder.layers.0.fc2.weight"));
  }
}

TEST_F(DivergenceTest, AdviceNamesACheckpointFromBefore) {
  RunConfig config = tiny_config(dir_.path(), "run");
  TinyTrainer(config, *comm_, {.quantize = false, .resume = true, .stop_requested = stop_at(3)}).run();
  TinyTrainer trainer(config, *comm_, {});
  set(trainer.model(), "decoder.layers.1.fc1.weight", 5, kNan);
  const std::string last = (dir_ / "run" / "checkpoint_last.h5").string();
  EXPECT_THAT(error_of(trainer), HasSubstr("the newest checkpoint from before is " + last + " (update 3, all of it"));
  // One that is not finite is none to go back to.
  StateDict state = load_state(last);
  state.tensors.begin()->second.view().as<float>()[0] = kNan;
  save_state(last, state);
  EXPECT_THAT(divergence_advice(std::vector<std::filesystem::path>{last}, 3),
              HasSubstr("there is no checkpoint from before"));
}

TEST_F(DivergenceTest, SkippedUpdatesChangeNothingAndAreCounted) {
  for (const OptimizerKind kind : {OptimizerKind::nag, OptimizerKind::adam})
    for (const MissingGradient missing : {MissingGradient::zero, MissingGradient::skip}) {
      RunConfig config = tiny_config(dir_.path(), fmt::format("run_{}_{}", name_of(kind), name_of(missing)));
      config.optimizer.name = kind;
      config.optimizer.missing_gradient = missing;
      config.train.non_finite = NonFinite::skip;
      config.train.non_finite_limit = 3;
      config.train.validate_every_updates = 0;
      TinyTrainer trainer(config, *comm_, {});
      set(trainer.model(), "decoder.layers.0.fc1.weight", 0, std::numeric_limits<float>::infinity());
      const std::vector<float> before = parameter_values(trainer.model());
      EXPECT_THAT(error_of(trainer), HasSubstr("update 4 is not finite"));
      EXPECT_EQ(parameter_values(trainer.model()), before);
      const auto found = records(fmt::format("run_{}_{}", name_of(kind), name_of(missing)));
      ASSERT_EQ(found.size(), 3U);
      for (size_t i = 0; i < 3; ++i) {
        EXPECT_EQ(found[i]["skipped"], true);
        EXPECT_EQ(found[i]["skipped_updates"], i + 1);
        EXPECT_TRUE(found[i]["loss"].is_null());
      }
    }
}

TEST_F(DivergenceTest, AValidationThatIsNotFiniteIsNeitherBestNorTheEnd) {
  RunConfig config = tiny_config(dir_.path(), "run");
  config.schedule.name = Schedule::fixed;
  config.schedule.warmup_updates = 0;
  config.schedule.lr = 1e20;
  config.optimizer.name = OptimizerKind::adam;
  config.train.max_updates = 1;
  TinyTrainer trainer(config, *comm_, {});
  EXPECT_THAT(error_of(trainer), HasSubstr("the model is of no use after update 1: its validation is not finite"));
  EXPECT_FALSE(std::filesystem::exists(dir_ / "run" / "checkpoint_best.h5"));
  EXPECT_FALSE(std::filesystem::exists(dir_ / "run" / "checkpoint_last.h5"));
}

TEST_F(DivergenceTest, AStateWithNanIsNotSaved) {
  RunConfig config = tiny_config(dir_.path(), "run");
  config.train.max_updates = 1;
  config.optimizer.missing_gradient = MissingGradient::skip;
  TinyTrainer trainer(config, *comm_, {});
  trainer->module().parameters();
  set(trainer.model(), "decoder.layers.1.fc1.bias", 7, -std::numeric_limits<float>::infinity());  // ReLU hides it
  EXPECT_THAT(error_of(trainer), HasSubstr("parameters/decoder.layers.1.fc1.bias is not finite after update 1"));
  EXPECT_FALSE(std::filesystem::exists(dir_ / "run" / "checkpoint_last.h5"));
}

TEST(RunStateTest, WhatIsNotFiniteIsNeverTheBest) {
  RunState state;
  EXPECT_FALSE(state.record({"loss", kNan}));
  EXPECT_EQ(state.bad_validations, 1);
  EXPECT_TRUE(state.record({"loss", 5.0}));
  EXPECT_FALSE(state.record({"loss", -std::numeric_limits<double>::infinity()}));
  EXPECT_FALSE(state.record({"loss", kNan}));
  EXPECT_EQ(state.best, 5.0);
  EXPECT_TRUE(state.record({"loss", 4.0}));
}

}  // namespace
}  // namespace qn::test
