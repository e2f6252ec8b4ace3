// Whole runs of a masked language model: the same on any number of ranks, resumed, quantized, packed, pruned.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "shared_dir.h"
#include "support/test_comm.h"
#include "support/tolerance.h"
#include "tasks/masked_lm.h"
#include "tasks/pruning.h"
#include "tiny_run.h"

namespace qn::test {
namespace {

using testing::HasSubstr;

/// Everything random at once; blocks of whole sentences, which have 13 tokens.
RunConfig masked_config(const std::filesystem::path& dir, const std::string& name) {
  RunConfig c = tiny_config(dir, name);
  c.model = ModelConfig(ModelType::roberta);
  c.model.layers = 3;
  c.model.embed_dim = 32;
  c.model.ffn_dim = 64;
  c.model.heads = 2;
  c.model.dropout = c.model.attention_dropout = c.model.activation_dropout = 0.1;
  c.model.layerdrop = 0.2;
  c.model.noise_projection = true;
  c.task = TaskConfig(TaskType::masked_lm);
  c.data.break_mode = BreakMode::complete;
  c.data.tokens_per_sample = 30;
  c.optimizer = {.name = OptimizerKind::adam, .beta2 = 0.98, .eps = 1e-6, .weight_decay = 0.01, .clip_norm = 0.0};
  c.schedule = {.name = Schedule::polynomial, .lr = 0.01, .warmup_updates = 3, .total_updates = 20};
  c.quant_noise.groups = {"paper", "head"};
  return c;
}

RunConfig masked_ipq_config(const std::filesystem::path& dir, const std::string& name,
                            const std::filesystem::path& from) {
  RunConfig c = masked_config(dir, name);
  c.checkpoint.init_from = from.string();
  c.ipq.updates_per_stage = 4;
  c.ipq.kmeans_iterations = 6;
  c.ipq.activations = Activations::input;
  return c;
}

std::string mine(const std::string& name) { return fmt::format("{}_{}", name, comm().rank()); }
constexpr auto kLast = "checkpoint_last.h5";

TEST(MaskedLmRun, LearnsTheSameOnAnyNumberOfRanks) {
  const SharedDir dir;
  const auto local = make_local_communicator();
  TaskTrainer alone(masked_config(dir.path(), mine("alone")), *local, {});
  const double before = alone->validate_now().at("loss");
  ASSERT_EQ(alone->run(), Outcome::finished);
  EXPECT_LT(alone->validate_now().at("loss"), before - 0.3);
  for (const bool overlap : {false, true}) {
    RunConfig config = masked_config(dir.path(), fmt::format("together_{}", overlap));
    config.comm.overlap = overlap;
    config.comm.bucket_mib = 0.01;
    TaskTrainer together(config, comm(), {});
    ASSERT_EQ(together->run(), Outcome::finished);
    EXPECT_TRUE(close(parameter_values(together->module()), parameter_values(alone->module()), kTrajectoryTolerance));
    EXPECT_TRUE(close(together->validate_now().loss, alone->validate_now().loss, kSummationTolerance));
  }
}

TEST(MaskedLmRun, ResumesBitExactly) {
  const SharedDir dir;
  const auto local = make_local_communicator();
  RunConfig config = masked_config(dir.path(), mine("straight"));
  config.train.max_updates = 40;  // beyond the first epoch: masks change
  TaskTrainer straight(config, *local, {});
  ASSERT_EQ(straight->run(), Outcome::finished);
  ASSERT_GT(straight.task().epoch(), 1);
  config.checkpoint.dir = (dir.path() / mine("stopped")).string();
  for (const int stop : {7, 20, 0})
    TaskTrainer(config, *local, {.quantize = false, .resume = true, .stop_requested = stop_at(stop)})->run();
  TaskTrainer rest(config, *local, {});
  ASSERT_EQ(rest->update(), 40);
  EXPECT_EQ(parameter_values(rest->module()), parameter_values(straight->module()));
  EXPECT_EQ(rest->validate_now().loss, straight->validate_now().loss);
}

TEST(MaskedLmRun, IsQuantizedPackedAndEvaluated) {
  const SharedDir dir;
  if (comm().is_root()) {
    const auto local = make_local_communicator();
    TaskTrainer(masked_config(dir.path(), "dense"), *local, {})->run();
  }
  comm().barrier();
  const RunConfig config = masked_ipq_config(dir.path(), "ipq", dir.path() / "dense" / kLast);
  TaskTrainer trainer(config, comm(), {.quantize = true, .resume = true, .stop_requested = {}});
  ASSERT_EQ(trainer->run(), Outcome::finished);
  trainer->round_weights(packed_storage(config.ipq));
  const auto path = dir.path() / "model.safetensors";
  if (comm().is_root()) write_packed_file(path, trainer, config);
  comm().barrier();
  const ModelFile file = load_model_file(path);
  EXPECT_NE(dynamic_cast<MaskedLm*>(file.task.get()), nullptr);
  EXPECT_TRUE(
      agree(trainer.task().evaluate_module(file.module(), cpu_kernels(), comm(), DType::f32), trainer->validate_now()));
  // `eval` of the validation split, cut as in training.
  EvalConfig scored;
  scored.data = config.data.path;
  scored.split = "valid";
  scored.tokens_per_sample = 30;
  scored.break_mode = BreakMode::complete;
  const EvalReport report = file.task->score_data(scored, cpu_kernels(), comm(), DType::f32);
  ASSERT_EQ(report.fields.size(), 3u);
  EXPECT_EQ(std::get<int64_t>(report.fields[0].value), trainer->validate_now().sample_size);
  EXPECT_TRUE(close(std::get<double>(report.fields[1].value), trainer->validate_now().at("loss"), kSummationTolerance));
  scored.context_window = 5;
  EXPECT_THAT([&] { file.task->score_data(scored, cpu_kernels(), comm(), DType::f32); },
              testing::ThrowsMessage<UsageError>(HasSubstr("from left to right")));
}

TEST(MaskedLmRun, IsPrunedAndRefusesOtherModels) {
  const SharedDir dir;
  const auto local = make_local_communicator();
  const RunConfig config = masked_config(dir.path(), mine("dense"));
  TaskTrainer(config, *local, {})->run();
  const auto from = std::filesystem::path(config.checkpoint.dir) / kLast;
  RunConfig pruned = masked_config(dir.path(), mine("pruned"));
  pruned.checkpoint.init_from = from.string();
  pruned.checkpoint.layers_to_keep = "0,2";
  prune_config(pruned);
  EXPECT_EQ(pruned.model.layers, 2);
  TaskTrainer trainer(pruned, *local, {});
  const ModelFile file = load_model_file(from, cpu_kernels(), "0,2");
  EXPECT_EQ(parameter_values(trainer->module()), parameter_values(file.module()));
  const auto expect_refused = [&](const std::string& message, const std::function<void(RunConfig&)>& change) {
    RunConfig other = masked_config(dir.path(), mine("other"));
    other.checkpoint.init_from = from.string();
    change(other);
    EXPECT_THAT([&] { TaskTrainer(other, *local, {.resume = false, .stop_requested = {}}); },
                testing::ThrowsMessage<Error>(HasSubstr(message)))
        << message;
  };
  expect_refused("model.heads: 2 -> 4", [](RunConfig& c) { c.model.heads = 4; });
  expect_refused("model.untie_output: false -> true", [](RunConfig& c) { c.model.untie_output = true; });
  expect_refused("model.type: roberta -> transformer_lm",
                 [&](RunConfig& c) { c = tiny_config(dir.path(), mine("other")), c.checkpoint.init_from = from; });
}

TEST(MaskedLmConfig, SaysWhatIsWrong) {
  const auto refuses = [](const std::string& text, const std::string& message) {
    EXPECT_THAT([&] { read_config<RunConfig>(config_tree_from_text(text, "x.yaml")); },
                testing::ThrowsMessage<UsageError>(HasSubstr(message)))
        << text;
  };
  refuses("{model: {type: roberta}, task: {type: language_modeling}}",
          "'task.type' language_modeling is not for model.type roberta, which learns masked_lm, sentence_prediction");
  refuses("task: {mask_prob: 0.2}", "unknown key 'task.mask_prob'");
  refuses("{model: {type: roberta}, task: {mask_prob: 0}}", "'task.mask_prob' must be in (0, 1]");
  refuses("{model: {type: roberta}, task: {leave_unmasked_prob: 0.6, random_token_prob: 0.6}}", "at most 1");
  const auto config = read_config<RunConfig>(config_tree_from_text("model: {type: roberta}", "x.yaml"));
  EXPECT_EQ(config.task.type, TaskType::masked_lm);
  const std::string text = dump_config(config);
  EXPECT_EQ(dump_config(read_config<RunConfig>(config_tree_from_text(text, "y.yaml"))), text);
  EXPECT_THAT(describe_run_config(), HasSubstr("task.mask_whole_words"));
  EXPECT_THAT(describe_run_config(), HasSubstr("model.untie_output"));
}

}  // namespace
}  // namespace qn::test
