// The finetuning of `quantize`: which updates a stage has and by what they are taken, what the stage leaves behind.
#include "train/finetuning.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "compress/representation.h"
#include "quant/quantizer.h"
#include "tasks/run.h"
#include "tiny_run.h"
#include "train/checkpoint_file.h"

namespace qn::test {
namespace {

class FinetuningTest : public testing::Test {
 protected:
  void SetUp() override {
    prepare_tiny_corpus(dir_.path());
    dense_ = dir_ / "dense" / "checkpoint_last.h5";
    TinyTrainer(tiny_config(dir_.path(), "dense"), *local_, {}).run();
  }

  /// The training configuration, with nothing said of quantization but the number of updates.
  RunConfig config(const std::string& name, std::vector<int64_t> updates) const {
    RunConfig c = tiny_config(dir_.path(), name);
    c.checkpoint.init_from = dense_.string();
    c.ipq.kmeans_iterations = 6;
    c.ipq.stage_updates = std::move(updates);
    return c;
  }
  std::unique_ptr<TinyTrainer> run(const RunConfig& c) {
    auto trainer = std::make_unique<TinyTrainer>(c, *local_, TrainerOptions{.quantize = true, .stop_requested = {}});
    EXPECT_EQ(trainer->run(), Outcome::finished);
    return trainer;
  }
  QuantizationPlan plan_of(const RunConfig& c) const {
    return make_run_plan(preview_task(c, 68)->module(), c.quant_noise, &c.ipq);
  }

  TempDir dir_;
  std::filesystem::path dense_;
  const std::unique_ptr<Communicator> local_ = make_local_communicator();
};

std::vector<std::string> groups_by_stage(const QuantizationPlan& plan) {
  std::vector<std::string> groups;
  for (int64_t stage = 0; stage < plan.stages; ++stage) groups.push_back(plan.stage(stage).front().group);
  return groups;
}

TEST_F(FinetuningTest, TablesComeFirstUnlessTheRecipeIsTheOldOne) {
  RunConfig c = config("order", {});
  EXPECT_THAT(groups_by_stage(plan_of(c)), testing::ElementsAre("embed", "ffn", "attn"));
  c.ipq.updates_per_stage = 4;
  EXPECT_THAT(groups_by_stage(plan_of(c)), testing::ElementsAre("ffn", "embed", "attn"));
}

TEST_F(FinetuningTest, StagesHaveTheirOwnUpdatesAndRates) {
  RunConfig c = config("stages", {5, 2, 3});
  c.ipq.stage_lr = {0.1, 0.2, 0.4};
  c.ipq.stage_optimizers = {"adam", "nag", "adam"};
  c.ipq.schedule = {.name = Schedule::polynomial};
  const QuantizationPlan plan = plan_of(c);
  const Finetuning all(c.ipq, plan, c.ipq.optimizer, c.ipq.schedule);
  EXPECT_EQ(all.total(), 10);
  EXPECT_EQ(all.start_of(1), 5);
  EXPECT_EQ(all.start_of(3), 10);
  EXPECT_EQ(all.optimizer(1).name, OptimizerKind::nag);
  EXPECT_EQ(all.optimizer(2).name, OptimizerKind::adam);
  EXPECT_DOUBLE_EQ(all.learning_rate(0, 0), 0.1);
  EXPECT_DOUBLE_EQ(all.learning_rate(1, 5), 0.1);  // half of the run is over, and its own rate is twice the first one
  EXPECT_DOUBLE_EQ(all.learning_rate(2, 9), 0.04);
  c.ipq.stage_optimizers = {"rmsprop_tf"};
  EXPECT_EQ(Finetuning(c.ipq, plan, c.ipq.optimizer, {}).optimizer(0).eps, 1e-3) << "what it usually has";
  c.ipq.restart_schedule = true;
  const Finetuning anew(c.ipq, plan, c.ipq.optimizer, c.ipq.schedule);
  EXPECT_DOUBLE_EQ(anew.learning_rate(1, 5), 0.2);
  EXPECT_DOUBLE_EQ(anew.learning_rate(1, 6), 0.1);
  EXPECT_DOUBLE_EQ(anew.learning_rate(2, 7), 0.4);
  c.ipq.input_exponent = {0.0, 1.0};
  EXPECT_THAT([&] { Finetuning(c.ipq, plan, {}, {}); },
              testing::ThrowsMessage<UsageError>(testing::HasSubstr("ipq.input_exponent has 2 entries")));
  c.ipq.input_exponent = {0.0, 0.0, 1.0};
  EXPECT_EQ(Finetuning(c.ipq, plan, {}, {}).input_exponent(2), 1.0);
  c.ipq.stage_updates = {5, 2};
  EXPECT_THAT(
      [&] { Finetuning(c.ipq, plan, {}, {}); },
      testing::ThrowsMessage<UsageError>(testing::HasSubstr("ipq.stage_updates has 2 entries, but there are 3")));
}

TEST_F(FinetuningTest, CodesThatNothingTrainsGetNoUpdates) {
  RunConfig c = config("defaults", {});
  EXPECT_EQ(Finetuning(c.ipq, plan_of(c), {}, {}).total(), 3 * kDefaultStageUpdates);
  c.ipq.method = QuantizeMethod::integer;
  EXPECT_EQ(Finetuning(c.ipq, plan_of(c), {}, {}).total(), 0);
}

TEST_F(FinetuningTest, ATrainingConfigurationFinetunesByTheSectionIpq) {
  RunConfig c = config("own", {4});
  c.optimizer.name = OptimizerKind::nag;
  c.schedule.lr = 1e6;  // of no concern
  const auto trainer = run(c);
  EXPECT_EQ(trainer->update(), 12);
  const StateDict state = load_state(dir_ / "own" / "checkpoint_last.h5");
  EXPECT_TRUE(state.ints.contains("optimizer/steps/decoder.layers.0.fc1.bias"));
  RunConfig without = config("without", {0});
  EXPECT_LT(trainer->validate_now().base2(), run(without)->validate_now().base2());
}

/// Losses of all validations after the last stage's k-means, that one included.
std::vector<double> validations_of_last_stage(const std::filesystem::path& dir) {
  std::ifstream file(dir / "metrics.jsonl");
  std::vector<double> losses;
  for (std::string line; std::getline(file, line);) {
    const auto record = nlohmann::json::parse(line);
    if (record["kind"] == "stage") losses = {record["valid_loss"].get<double>()};
    if (record["kind"] == "valid") losses.push_back(record["loss"].get<double>());
  }
  return losses;
}

TEST_F(FinetuningTest, AStageLeavesItsBestModelBehind) {
  RunConfig c = config("kept", {6});
  c.ipq.schedule = {.name = Schedule::fixed, .lr = 0.2};  // wild
  c.train.validate_every_updates = 1;
  const double kept = run(c)->validate_now().at("loss");
  std::vector<double> losses = validations_of_last_stage(dir_ / "kept");
  EXPECT_EQ(losses.size(), 7u);
  EXPECT_EQ(kept, *std::min_element(losses.begin(), losses.end()));
  EXPECT_LT(kept, losses.back());
  c.checkpoint.dir = (dir_ / "not_kept").string();
  c.ipq.keep_best = false;
  const double last = run(c)->validate_now().at("loss");
  EXPECT_EQ(last, validations_of_last_stage(dir_ / "not_kept").back());
}

TEST_F(FinetuningTest, AveragesAreWhatIsValidatedAndPacked) {
  RunConfig c = config("average", {8});
  c.ipq.keep_best = false;
  const auto plain = run(c);
  c.checkpoint.dir = (dir_ / "averaged").string();
  c.ipq.average_decay = 0.9;
  const auto averaged = run(c);
  EXPECT_NE(parameter_values(plain->model()), parameter_values(averaged->model()));
  const ModelFile file = load_model_file(dir_ / "averaged" / "checkpoint_last.h5");
  EXPECT_EQ(averaged->task().evaluate_module(file.module(), cpu_kernels(), *local_, DType::f32).loss,
            averaged->validate_now().loss);
}

TEST_F(FinetuningTest, BlocksMoveToOtherCentroids) {
  RunConfig c = config("fixed", {8});
  const std::vector<uint16_t> fixed = all_codes(run(c)->model());
  c.checkpoint.dir = (dir_ / "moved").string();
  c.ipq.reassign_updates = 2;
  c.ipq.reassign_share = 0.1;
  const auto moved = run(c);
  EXPECT_NE(all_codes(moved->model()), fixed);
  const std::filesystem::path path = dir_ / "moved.safetensors";
  moved->round_weights(packed_storage(c.ipq));
  EXPECT_EQ(write_packed_file(path, *moved, c), predicted_bytes(*moved, c));
  const ModelFile packed = load_model_file(path);
  EXPECT_EQ(moved->task().evaluate_module(packed.module(), cpu_kernels(), *local_, DType::f32).loss,
            moved->validate_now().loss);
}

TEST_F(FinetuningTest, AnExplicitQuantizerOfMoreCentroidsThanSmallWeightsHaveUseFor) {
  RunConfig c = config("capped", {1});
  c.ipq.quantizer = "pq block_size=8 n_centroids=200";
  const auto trainer = run(c);
  const std::filesystem::path path = dir_ / "capped.safetensors";
  trainer->round_weights(packed_storage(c.ipq));
  EXPECT_EQ(write_packed_file(path, *trainer, c), predicted_bytes(*trainer, c));
  EXPECT_LT(trainer->plan().quantized().front().quantizer->kmeans()->n_centroids, 200);
}

TEST_F(FinetuningTest, RowScalesAreFinetunedAndPacked) {
  RunConfig c = config("scaled", {6});
  c.ipq.row_scales = {"."};
  c.ipq.keep_best = false;
  const auto scaled = run(c);
  const StateDict state = load_state(dir_ / "scaled" / "checkpoint_last.h5");
  const std::string scales = "decoder.layers.0.fc1.row_scales";
  EXPECT_TRUE(state.tensors.contains("parameters/" + scales));
  EXPECT_EQ(state.integer("optimizer/steps/" + scales), 6);
  scaled->round_weights(packed_storage(c.ipq));
  const std::filesystem::path path = dir_ / "scaled.safetensors";
  EXPECT_EQ(write_packed_file(path, *scaled, c), predicted_bytes(*scaled, c));
  const ModelFile packed = load_model_file(path);
  EXPECT_EQ(scaled->task().evaluate_module(packed.module(), cpu_kernels(), *local_, DType::f32).loss,
            scaled->validate_now().loss);
}

TEST_F(FinetuningTest, FinetuningNeverEndsWorseThanItBegan) {
  RunConfig c = config("ruined", {1});
  c.ipq.schedule = {.name = Schedule::fixed, .lr = 0.2};
  const double kept = run(c)->validate_now().at("loss");
  const std::vector<double> losses = validations_of_last_stage(dir_ / "ruined");
  EXPECT_GT(losses.back(), 1.1 * losses.front());
  EXPECT_EQ(kept, losses.front());
}

TEST_F(FinetuningTest, NothingIsLostByStoringWhatWasFinetunedInInt8) {
  RunConfig c = config("int8", {4});
  c.ipq.centroids = ValueStorage::int8;
  c.ipq.dense = ValueStorage::f32;
  c.ipq.activations = Activations::input;
  const auto trainer = run(c);
  const double finetuned = trainer->validate_now().loss;
  const PackedStorage storage = packed_storage(c.ipq);
  trainer->round_weights(storage);
  EXPECT_EQ(trainer->validate_now().loss, finetuned);
  const std::filesystem::path path = dir_ / "int8.safetensors";
  write_packed_file(path, *trainer, c);
  const ModelFile packed = load_model_file(path);
  EXPECT_EQ(trainer->task().evaluate_module(packed.module(), cpu_kernels(), *local_, DType::f32).loss, finetuned);
}

TEST_F(FinetuningTest, TeachersDrawTheModelToTheirs) {
  const RunConfig alone = config("alone", {4});
  RunConfig taught = config("taught", {4});
  taught.ipq.teacher = {dense_.string(), dense_.string()};
  const auto student = run(taught);
  EXPECT_NE(parameter_values(student->model()), parameter_values(run(alone)->model()));
  taught.checkpoint.dir = (dir_ / "one").string();
  taught.ipq.teacher.pop_back();
  EXPECT_NEAR(run(taught)->validate_now().base2(), student->validate_now().base2(), 1e-3);  // the mean of equal ones
  taught.checkpoint.dir = (dir_ / "none").string();
  taught.ipq.teacher_weight = 0.0;
  EXPECT_EQ(parameter_values(run(taught)->model()),
            parameter_values(TinyTrainer(alone, *local_, {.quantize = true, .stop_requested = {}}).model()));
  taught.checkpoint.dir = (dir_ / "missing").string();
  taught.ipq.teacher = {"missing.h5"};
  EXPECT_THAT([&] { TinyTrainer(taught, *local_, {.quantize = true, .stop_requested = {}}); },
              testing::ThrowsMessage<UsageError>(testing::HasSubstr("ipq.teacher: there is no file missing.h5")));
  taught.ipq.teacher = {dense_.string()};
  taught.model.adaptive.cutoffs = {20, 40};
  taught.checkpoint.init_from.clear();
  EXPECT_THAT([&] { TinyTrainer(taught, *local_, {.quantize = true, .stop_requested = {}}); },
              testing::ThrowsMessage<UsageError>(testing::HasSubstr("divides its words into other bands")));
}

/// Everything at once.
RunConfig with_all(RunConfig c) {
  c.ipq.stage_lr = {0.02, 0.01, 0.02};
  c.ipq.stage_optimizers = {"adam", "nag", "adam"};
  c.ipq.centroid_gradient = CentroidGradient::root;
  c.ipq.centroids = ValueStorage::int8;
  c.ipq.row_scales = {"."};
  c.ipq.input_exponent = {1.0, 0.0, 0.5};
  c.ipq.calibration_batches = 5;
  c.ipq.average_decay = 0.8;
  c.ipq.reassign_updates = 2;
  c.ipq.reassign_share = 0.05;
  c.train.validate_every_updates = 3;
  return c;
}

TEST_F(FinetuningTest, ResumesAnywhere) {
  const auto straight = run(with_all(config("straight", {5, 4, 6})));
  // Questions: after 5 of 6 k-means iterations, after the updates of the stage, and so on.
  for (const int stop : {2, 6, 7, 8, 10, 12, 17, 18, 21, 25, 26, 28, 30}) {
    const RunConfig c = with_all(config(fmt::format("stopped_{}", stop), {5, 4, 6}));
    {
      TinyTrainer first(c, *local_, {.quantize = true, .resume = true, .stop_requested = stop_at(stop)});
      if (first.run() == Outcome::finished) continue;
    }
    const auto second = run(c);
    EXPECT_EQ(all_codes(second->model()), all_codes(straight->model())) << stop;
    EXPECT_EQ(parameter_values(second->model()), parameter_values(straight->model())) << stop;
  }
}

TEST_F(FinetuningTest, StagesThatAreOverKeepTheirUpdates) {
  const auto resume = [&](const char* from, std::vector<int64_t> updates, int64_t reassign = 0) {
    const std::filesystem::path copy = dir_ / "copy";
    std::filesystem::remove_all(copy);
    std::filesystem::copy(dir_ / from, copy);
    RunConfig c = config("copy", std::move(updates));
    c.ipq.reassign_updates = reassign;
    return run(c)->update();
  };
  const auto refusal = testing::ThrowsMessage<UsageError>(testing::HasSubstr("ipq.stage_updates: the run has"));
  {
    TinyTrainer first(config("under_way", {4, 5, 3}), *local_, {.quantize = true, .stop_requested = stop_at(16)});
    EXPECT_EQ(first.run(), Outcome::stopped);
    EXPECT_EQ(first.update(), 6) << "the stop was to be after 2 updates of stage 2";
  }
  EXPECT_EQ(resume("under_way", {4, 3, 1}), 8);
  EXPECT_EQ(resume("under_way", {4, 7, 3}), 14);
  for (const std::vector<int64_t>& updates : std::vector<std::vector<int64_t>>{{4, 2, 3}, {4, 1, 3}, {5, 4, 3}, {3}})
    EXPECT_THAT([&] { resume("under_way", updates); }, refusal);
  EXPECT_THAT(
      [&] {
        resume("under_way", {4, 5, 3}, 2);
      },
      testing::ThrowsMessage<UsageError>(testing::HasSubstr("ipq.reassign_updates: the run has")));
  run(config("over", {4}));
  for (const std::vector<int64_t>& updates : std::vector<std::vector<int64_t>>{{5}, {4, 4, 3}, {4, 5, 3}})
    EXPECT_THAT([&] { resume("over", updates); }, refusal);
  EXPECT_EQ(resume("over", {4}), 12);
  EXPECT_EQ(resume("over", {4, 4, 6}), 14);
}

/// What a finished run ended with counts as one of the models of its last stage when that gets more updates.
TEST_F(FinetuningTest, ALastStageThatIsMadeLongerKeepsItsBest) {
  RunConfig c = config("longer", {2});
  auto first = run(c);
  const double found = first->validate_now().at("loss");
  const int64_t updates = first->update();
  const std::vector<float> values = parameter_values(first->model());
  first.reset();  // it has the folder
  c.ipq.stage_updates.assign(3, 2);
  c.ipq.stage_updates.back() = 5;
  c.ipq.schedule = {.name = Schedule::fixed, .lr = 0.5};  // ruins everything
  const auto second = run(c);
  EXPECT_EQ(second->update(), updates + 3);
  EXPECT_EQ(second->validate_now().at("loss"), found);
  EXPECT_EQ(parameter_values(second->model()), values);
}

TEST_F(FinetuningTest, AnotherTeacherByTheSameNameIsNoticed) {
  const std::filesystem::path teacher = dir_ / "teacher.h5";
  std::filesystem::copy_file(dense_, teacher);
  RunConfig c = config("taught", {4});
  c.ipq.teacher = {teacher.string()};
  {
    TinyTrainer stopped(c, *local_, {.quantize = true, .stop_requested = stop_at(12)});
    ASSERT_EQ(stopped.run(), Outcome::stopped);
  }
  StateDict state = load_state(teacher);
  state.floats["training_seconds"] += 1.0;
  save_state(teacher, state);
  EXPECT_THAT([&] { run(c); }, testing::ThrowsMessage<UsageError>(
                                   testing::AllOf(testing::HasSubstr("teacher.h5 is not what the run has learned from"),
                                                  testing::HasSubstr("--fresh"))));
  c.ipq.teacher = {dense_.string()};  // the same content by another name
  EXPECT_EQ(run(c)->update(), 12);
}

/// Lines of options_without_effect() for a section `ipq`, on a small model.
TEST(FinetuningConfig, WhatDoesNothingIsSaid) {
  const auto lines = [](const std::string& text) {
    const auto read = read_config<RunConfig>(config_tree_from_text("ipq: {" + text + "}\n", "x.yaml"));
    QuantizationPlan plan;
    plan.stages = 1;
    WeightPlan weight;
    weight.name = "fc.weight";
    weight.rows = weight.cols = 8;
    weight.stage = 0;
    const bool integers = read.ipq.method == QuantizeMethod::integer;
    weight.quantizer = make_quantizer(integers ? "int" : "pq",
                                      integers ? QuantizerOptions{{"bits", "8"}, {"range", "tensor"}}
                                               : QuantizerOptions{{"block_size", "8"}, {"n_centroids", "16"}});
    plan.weights.push_back(weight);
    return options_without_effect(read.ipq, plan, Finetuning(read.ipq, plan, {}, {}));
  };
  const auto one = [](const char* key, const char* reason) {
    return testing::ElementsAre(
        testing::AllOf(testing::StartsWith(fmt::format("ipq.{} has no effect", key)), testing::HasSubstr(reason)));
  };
  EXPECT_THAT(lines(""), testing::IsEmpty());
  EXPECT_THAT(lines("method: int"), testing::IsEmpty());
  EXPECT_THAT(lines("reassign_updates: 20, reassign_share: 0.1, centroids: int8"), testing::IsEmpty());
  EXPECT_THAT(lines("method: int, reassign_updates: 20"), one("reassign_updates", "no weight gets that"));
  EXPECT_THAT(lines("method: int, centroid_gradient: mean"), one("centroid_gradient", "product quantization"));
  EXPECT_THAT(lines("method: int, centroids: int8"), one("centroids", "product quantization"));
  EXPECT_THAT(lines("reassign_updates: 200"), one("reassign_updates", "twice as many"));
  EXPECT_THAT(lines("reassign_share: 0.1"), one("reassign_share", "reassign_updates is 0"));
  EXPECT_THAT(lines("teacher_weight: 0.7"), one("teacher_weight", "no ipq.teacher"));
  EXPECT_THAT(lines("teacher: [a.h5], stage_updates: [0]"), one("teacher", "no stage has updates"));
  EXPECT_THAT(lines("bits: 4"), one("bits", "method int"));
  EXPECT_THAT(lines("activation_bits: 4"), one("activation_bits", "activations is none"));
  EXPECT_THAT(lines("average_decay: 0.9, stage_updates: [0]"), one("average_decay", "no stage has updates"));
}

TEST(FinetuningConfig, TwoRecipesAtOnceAreRefused) {
  const auto read = [](const std::string& text) {
    return read_config<RunConfig>(config_tree_from_text("ipq: {" + text + "}\n", "x.yaml"));
  };
  EXPECT_NO_THROW(read("updates_per_stage: 3"));
  EXPECT_NO_THROW(read("stage_updates: [3], optimizer: {name: nag}"));
  EXPECT_THAT([&] { read("updates_per_stage: 3, stage_updates: [3]"); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("another recipe")));
  EXPECT_THAT([&] { read("stage_optimizers: [lion]"); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("no optimizer 'lion': nag, adam, sgd, rmsprop_tf")));
  EXPECT_THAT([&] { read("reassign_share: 0"); }, testing::ThrowsMessage<Error>(testing::HasSubstr("(0, 1]")));
}

}  // namespace
}  // namespace qn::test
