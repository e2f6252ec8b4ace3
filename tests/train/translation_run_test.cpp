// Whole runs that learn to translate: the same on any number of ranks, resumed, with noise quantized and packed, and
// asked for translations.
#include <gtest/gtest.h>

#include <fstream>

#include "data/prepare_pairs.h"
#include "shared_dir.h"
#include "support/test_comm.h"
#include "support/tolerance.h"
#include "tasks/generate_config.h"
#include "tasks/translation.h"
#include "tiny_run.h"

namespace qn::test {
namespace {

/// Lines of 2 to 6 words, and their translation: the words' counterparts in reverse order.
void write_pairs(const std::filesystem::path& prefix, int lines, uint64_t seed) {
  std::ofstream source(prefix.string() + ".aa"), target(prefix.string() + ".bb");
  RandomStream random({.seed = seed, .purpose = Purpose::test});
  uint64_t draw = 0;
  const auto below = [&](int n) { return static_cast<int>(random.uniform(draw++) * n); };
  for (int i = 0; i < lines; ++i) {
    std::string from, to;
    for (int word = 2 + below(5); word > 0; --word) {
      const int id = below(12);
      from = fmt::format("{}{}a{}", from, from.empty() ? "" : " ", id);
      to = fmt::format("b{}{}{}", id, to.empty() ? "" : " ", to);
    }
    source << from << '\n';
    target << to << '\n';
  }
}

/// A folder data with translations.
class PairsDir : public SharedDir {
 public:
  PairsDir() {
    if (comm().is_root()) {
      PreparePairsOptions options;
      options.set_languages("aa-bb");
      for (const auto& [split, lines] : {std::pair{"train", 2500}, {"valid", 40}, {"test", 30}})
        write_pairs(path() / split, lines, hash_name(split));
      options.text.train = path() / "train";
      options.text.valid = {path() / "valid"};
      options.text.test = {path() / "test"};
      options.text.destdir = path() / "pairs";
      int64_t types = 0;
      prepare_pairs(options, types);
    }
    comm().barrier();
  }
};

RunConfig translation_config(const std::filesystem::path& dir, const std::string& name, int64_t updates) {
  RunConfig c = tiny_config(dir, name);
  c.model = ModelConfig(ModelType::transformer);
  c.model.layers = c.model.encoder_layers = 1;
  c.model.embed_dim = 32;
  c.model.ffn_dim = 64;
  c.model.heads = 4;
  c.model.dropout = 0.0;
  c.model.max_positions = 20;
  c.model.share_input_output = true;
  c.model.prenorm = true;
  c.task = TaskConfig(TaskType::translation);
  c.data.path = (dir / "pairs").string();
  c.data.max_tokens = 150;
  c.data.required_multiple = 1;
  c.optimizer = {.name = OptimizerKind::adam, .beta2 = 0.98, .eps = 1e-8, .weight_decay = 0.0, .clip_norm = 1.0};
  c.schedule = {.name = Schedule::inverse_sqrt, .lr = 0.01, .warmup_updates = 20};
  c.quant_noise.pq = 0.0;
  c.train.max_updates = updates;
  c.train.validate_every_updates = updates;
  return c;
}

std::string mine(const std::string& name) { return fmt::format("{}_{}", name, comm().rank()); }

TEST(TranslationRun, LearnsToTranslateAndWritesIt) {
  if (comm().size() > 1) GTEST_SKIP() << "one rank is enough";
  const PairsDir dir;
  RunConfig config = translation_config(dir.path(), "learns", 600);
  config.data.max_tokens = 300;
  config.schedule.lr = 0.006;
  TaskTrainer trainer(config, comm(), {});
  ASSERT_EQ(trainer->run(), Outcome::finished);
  const Evaluation& found = trainer->validate_now();
  EXPECT_GT(found.at("accuracy"), 95.0);
  const ModelFile file = load_model_file(std::filesystem::path(config.checkpoint.dir) / "checkpoint_last.h5");
  const auto written = file.task->generate_split(config.data.path, "test", GenerateConfig{}, cpu_kernels(), DType::f32);
  EXPECT_EQ(written.lines.size(), 30U);
  EXPECT_GT(std::get<double>(written.report.fields.at(1).value), 80.0) << written.report.result;
  const std::vector<std::string> lines{"a1 a2 a3", "a7 a0"};
  const auto translated = file.task->generate(config.data.path, lines, GenerateConfig{}, cpu_kernels(), DType::f32);
  EXPECT_EQ(translated[0][0].text, "b3 b2 b1");
  EXPECT_EQ(translated[1][0].text, "b0 b7");
}

TEST(TranslationRun, LearnsTheSameOnAnyNumberOfRanks) {
  const PairsDir dir;
  const auto local = make_local_communicator();
  TaskTrainer alone(translation_config(dir.path(), mine("alone"), 6), *local, {});
  ASSERT_EQ(alone->run(), Outcome::finished);
  TaskTrainer together(translation_config(dir.path(), "together", 6), comm(), {});
  ASSERT_EQ(together->run(), Outcome::finished);
  EXPECT_TRUE(
      close(parameter_values(together->module()), parameter_values(alone->module()), 10 * kTrajectoryTolerance));
  EXPECT_TRUE(close(together->validate_now().loss, alone->validate_now().loss, 1e-3));
}

TEST(TranslationRun, ResumesBitExactly) {
  const PairsDir dir;
  const auto local = make_local_communicator();
  RunConfig config = translation_config(dir.path(), mine("straight"), 12);
  config.model.dropout = 0.1;
  config.quant_noise.pq = 0.1;
  TaskTrainer straight(config, *local, {});
  ASSERT_EQ(straight->run(), Outcome::finished);
  config.checkpoint.dir = (dir.path() / mine("stopped")).string();
  for (const int stop : {4, 13, 0})
    TaskTrainer(config, *local, {.quantize = false, .resume = true, .stop_requested = stop_at(stop)})->run();
  TaskTrainer rest(config, *local, {});
  ASSERT_EQ(rest->update(), 12);
  EXPECT_EQ(parameter_values(rest->module()), parameter_values(straight->module()));
}

TEST(TranslationRun, IsQuantizedPackedEvaluatedAndTranslates) {
  const PairsDir dir;
  if (comm().is_root()) {
    const auto local = make_local_communicator();
    TaskTrainer(translation_config(dir.path(), "dense", 10), *local, {})->run();
  }
  comm().barrier();
  RunConfig config = translation_config(dir.path(), "ipq", 10);
  config.checkpoint.init_from = (dir.path() / "dense" / "checkpoint_last.h5").string();
  config.ipq.updates_per_stage = 3;
  config.ipq.kmeans_iterations = 5;
  config.ipq.stages = {".*embed_tokens", ".*fc[12]", "encoder.*self_attn.*", "decoder.*(self|encoder)_attn.*"};
  TaskTrainer trainer(config, comm(), {.quantize = true, .resume = true, .stop_requested = {}});
  ASSERT_EQ(trainer->run(), Outcome::finished);
  trainer->round_weights(packed_storage(config.ipq));
  const auto path = dir.path() / "model.safetensors";
  if (comm().is_root()) {
    EXPECT_EQ(write_packed_file(path, trainer, config), predicted_bytes(trainer, config));
  }
  comm().barrier();
  const ModelFile file = load_model_file(path);
  EXPECT_TRUE(
      agree(trainer.task().evaluate_module(file.module(), cpu_kernels(), comm(), DType::f32), trainer->validate_now()));
  EvalConfig scored;
  scored.data = config.data.path;
  scored.split = "valid";
  const EvalReport report = file.task->score_data(scored, cpu_kernels(), comm(), DType::f32);
  EXPECT_EQ(std::get<double>(report.fields[2].value), trainer->validate_now().at("accuracy"));
  // Lines translated together or alone are the same.
  const std::vector<std::string> lines{"a1 a2 a3 a4 a5", "a7", "never seen"};
  GenerateConfig together, alone;
  together.max_length_b = alone.max_length_b = 10;
  alone.batch = 1;
  const auto a = file.task->generate(config.data.path, lines, together, cpu_kernels(), DType::f32);
  const auto b = file.task->generate("", lines, alone, cpu_kernels(), DType::f32);  // by the words in the file
  for (size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(a[i][0].text, b[i][0].text);
    EXPECT_NEAR(a[i][0].score, b[i][0].score, 1e-4);
  }
  EXPECT_THROW(file.task->generate(config.data.path,
                                   std::vector<std::string>{"a1 a2 a3 a4 a5 a6 a7 a8 a9 a1 a2 a3 a4 "
                                                            "a5 a6 a7 a8 a9 a1 a2 a3"},
                                   together, cpu_kernels(), DType::f32),
               Error);
  together.given = {"temperature"};
  EXPECT_THROW(file.task->generate("", lines, together, cpu_kernels(), DType::f32), UsageError);
  EXPECT_EQ(describe_vocabulary(SafetensorsReader(path)), "16 words, 16 of the source language");
}

TEST(TranslationRun, TellsDictionariesApart) {
  const PairsDir dir;
  const auto local = make_local_communicator();
  RunConfig config = translation_config(dir.path(), mine("shared"), 1);
  config.model.share_all_embeddings = true;
  EXPECT_THROW(TaskTrainer(config, *local, {}), UsageError);
}

}  // namespace
}  // namespace qn::test
