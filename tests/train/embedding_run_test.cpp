// Whole runs of encoders that make vectors of sentences, and of BERT: without labels, from a teacher; the same on any
// number of ranks, resumed, quantized, packed, and asked for vectors.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <numeric>

#include "data/prepare_table.h"
#include "shared_dir.h"
#include "support/test_comm.h"
#include "support/tolerance.h"
#include "tiny_run.h"
#include "train/checkpoint_file.h"

namespace qn::test {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

constexpr auto kLast = "checkpoint_last.h5";
std::string mine(const std::string& name) { return fmt::format("{}_{}", name, comm().rank()); }

RunConfig bert_config(const fs::path& dir, const std::string& name, TaskType task) {
  RunConfig c = tiny_config(dir, name);
  c.model = ModelConfig(ModelType::bert);
  c.model.layers = 2;
  c.model.embed_dim = 32;
  c.model.ffn_dim = 64;
  c.model.heads = 2;
  c.model.max_positions = 30;
  c.task = TaskConfig(task, ModelType::bert);
  c.data.break_mode = BreakMode::complete;
  c.data.tokens_per_sample = 30;
  c.data.required_multiple = 1;
  c.optimizer = {.name = OptimizerKind::adam, .beta2 = 0.98, .eps = 1e-6, .weight_decay = 0.01, .clip_norm = 0.0};
  c.schedule = {.name = Schedule::polynomial, .lr = 0.005, .warmup_updates = 3, .total_updates = 60};
  return c;
}

/// A tiny corpus with a masked language model that was trained on it a little: the teacher.
class TeacherDir : public SharedDir {
 public:
  TeacherDir() {
    if (comm().is_root()) {
      const auto local = make_local_communicator();
      RunConfig config = bert_config(path(), "teacher", TaskType::masked_lm);
      config.quant_noise = {};
      TaskTrainer(config, *local, {})->run();
    }
    comm().barrier();
  }
  fs::path teacher() const { return path() / "teacher" / kLast; }
};

RunConfig embedding_config(const TeacherDir& dir, const std::string& name) {
  RunConfig c = bert_config(dir.path(), name, TaskType::sentence_embedding);
  c.task.embedding.teacher = dir.teacher().string();
  c.train.max_updates = 30;
  c.train.validate_every_updates = 10;
  return c;
}

TEST(EmbeddingRun, LearnsTheSameOnAnyNumberOfRanks) {
  const TeacherDir dir;
  const auto local = make_local_communicator();
  RunConfig config = embedding_config(dir, mine("alone"));
  TaskTrainer alone(config, *local, {});
  const double before = alone->validate_now().decisive().value;
  ASSERT_EQ(alone->run(), Outcome::finished);
  const Evaluation& found = alone->validate_now();
  EXPECT_EQ(found.decisive().name, "cosine");
  EXPECT_EQ(found.sample_size, 40);
  EXPECT_GT(found.decisive().value, before + 0.1);
  EXPECT_NEAR(found.loss, 2 * 40 * (1 - found.decisive().value), 1e-9);
  EXPECT_LE(found.at("cosine_min"), found.at("cosine_p05"));
  EXPECT_LE(found.at("cosine_p05"), found.at("cosine_median"));
  config.checkpoint.dir = (dir.path() / "together").string();
  TaskTrainer together(config, comm(), {});
  ASSERT_EQ(together->run(), Outcome::finished);
  EXPECT_TRUE(
      close(parameter_values(together->module()), parameter_values(alone->module()), 10 * kTrajectoryTolerance));
  EXPECT_NEAR(together->validate_now().decisive().value, found.decisive().value, 1e-4);
}

TEST(EmbeddingRun, TheTeacherItselfIsMet) {
  const TeacherDir dir;
  const auto local = make_local_communicator();
  RunConfig config = embedding_config(dir, mine("same"));
  config.checkpoint.init_from = dir.teacher().string();
  for (const Pooling pooling : {Pooling::mean, Pooling::cls}) {
    config.task.embedding.pooling = pooling;
    TaskTrainer trainer(config, *local, {});
    EXPECT_NEAR(trainer->validate_now().at("cosine_min"), 1.0, 1e-6);
  }
}

TEST(EmbeddingRun, ResumesBitExactly) {
  const TeacherDir dir;
  const auto local = make_local_communicator();
  RunConfig config = embedding_config(dir, mine("straight"));
  TaskTrainer straight(config, *local, {});
  ASSERT_EQ(straight->run(), Outcome::finished);
  config.checkpoint.dir = (dir.path() / mine("stopped")).string();
  for (const int stop : {4, 13, 0})
    TaskTrainer(config, *local, {.quantize = false, .resume = true, .stop_requested = stop_at(stop)})->run();
  TaskTrainer rest(config, *local, {});
  ASSERT_EQ(rest->update(), 30);
  EXPECT_EQ(parameter_values(rest->module()), parameter_values(straight->module()));
}

TEST(EmbeddingRun, IsQuantizedPackedEvaluatedAndAsked) {
  const TeacherDir dir;
  RunConfig config = embedding_config(dir, "ipq");
  config.checkpoint.init_from = dir.teacher().string();
  config.ipq.stages = {R"(.*\.embed_(tokens|positions))", R"(.*\.fc[12])", R"(.*_proj)"};
  config.ipq.stage_updates = {6};
  config.ipq.kmeans_iterations = 5;
  config.ipq.keep_best = true;
  TaskTrainer trainer(config, comm(), {.quantize = true, .resume = true, .stop_requested = {}});
  ASSERT_EQ(trainer->run(), Outcome::finished);
  trainer->round_weights(packed_storage(config.ipq));
  const auto path = dir.path() / "model.safetensors";
  if (comm().is_root()) write_packed_file(path, trainer, config);
  comm().barrier();
  const ModelFile file = load_model_file(path);
  const Weight* positions = file.module().weights().find("encoder.sentence_encoder.embed_positions.weight");
  ASSERT_NE(positions, nullptr);
  EXPECT_NE(positions->representation().quantized(), nullptr) << "a stage that names positions quantizes them";
  EXPECT_THAT(file.task->packed_metadata().at("task"), testing::Not(HasSubstr("teacher_")));
  EXPECT_TRUE(
      agree(trainer.task().evaluate_module(file.module(), cpu_kernels(), comm(), DType::f32), trainer->validate_now()));
  EvalConfig scored;
  scored.data = config.data.path;
  scored.split = "valid";
  const auto score = [&] { return file.task->score_data(scored, cpu_kernels(), comm(), DType::f32); };
  EXPECT_THAT([&] { score(); }, testing::ThrowsMessage<UsageError>(HasSubstr("--teacher is missing")));
  scored.teacher = dir.teacher().string();
  EXPECT_NEAR(std::get<double>(score().fields[1].value), trainer->validate_now().at("cosine"), 1e-9);

  const std::vector<std::string> lines{"w10 w1 w1", "", "never seen", "w10 w1 w1"};
  const auto vectors = file.task->embed(config.data.path, lines, cpu_kernels(), DType::f32);
  ASSERT_EQ(vectors.size(), lines.size());
  for (const auto& v : vectors) EXPECT_NEAR(std::inner_product(v.begin(), v.end(), v.begin(), 0.0), 1.0, 1e-5);
  EXPECT_EQ(vectors[0], vectors[3]);
  EXPECT_THAT([&] { file.task->predict(config.data.path, lines, cpu_kernels(), DType::f32); },
              testing::ThrowsMessage<UsageError>(HasSubstr("does not classify")));
}

TEST(EmbeddingRun, SaysWhatIsWrongWithATeacher) {
  const TeacherDir dir;
  const auto local = make_local_communicator();
  RunConfig config = embedding_config(dir, mine("wrong"));
  const auto expect_refused = [&](const std::string& message) {
    EXPECT_THAT([&] { TaskTrainer(config, *local, {}); }, testing::ThrowsMessage<UsageError>(HasSubstr(message)));
  };
  config.task.embedding.teacher = "";
  expect_refused("task.teacher is not set");
  config.task.embedding.teacher = (dir.path() / "none.h5").string();
  expect_refused("task.teacher: there is no file");
  config = embedding_config(dir, mine("narrow"));
  config.model.embed_dim = 16;
  expect_refused("have 32 numbers, those of this model 16");
  RunConfig lm = tiny_config(dir.path(), mine("lm"));
  lm.train.max_updates = 1;
  TaskTrainer(lm, *local, {})->run();
  config = embedding_config(dir, mine("lm_taught"));
  config.task.embedding.teacher = (fs::path(lm.checkpoint.dir) / kLast).string();
  expect_refused("is no encoder of sentences");
}

/// Tables are sentences as well; labels do not count.
void write_pairs(const fs::path& dir) {
  for (const char* split : {"train", "valid"}) {
    std::ofstream out(dir / fmt::format("{}.tsv", split));
    out << "sentence1\tsentence2\tlabel\n";
    for (int i = 0; i < 60; ++i)
      out << fmt::format("w{} w{} w3\tw{} w{}\t{}\n", 1 + i % 20, 2 + i % 7, 1 + (i + i % 2) % 20, 5 + i % 9,
                         i % 2 == 0 ? "same" : "other");
  }
  PrepareTableOptions options;
  options.text.train = dir / "train.tsv";
  options.text.valid = {dir / "valid.tsv"};
  options.text.destdir = dir / "pairs";
  options.text.srcdict = dir / "data" / "dict.txt";
  prepare_table(options);
}

TEST(BertRun, ClassifiesPairsAndLearnsFromATeacher) {
  const TeacherDir dir;
  const auto local = make_local_communicator();
  if (comm().is_root()) write_pairs(dir.path());
  comm().barrier();
  RunConfig config = bert_config(dir.path(), mine("pairs"), TaskType::sentence_prediction);
  EXPECT_EQ(config.task.sentences.separator_token, -1);
  config.data.path = (dir.path() / "pairs").string();
  config.checkpoint.init_from = dir.teacher().string();
  config.train.max_updates = 20;
  TaskTrainer dense(config, *local, {});
  ASSERT_EQ(dense->run(), Outcome::finished);
  // A classifier can be a teacher of classes, and its encoder one of vectors.
  RunConfig ipq = config;
  ipq.checkpoint.dir = (dir.path() / mine("pairs_ipq")).string();
  ipq.checkpoint.init_from = (fs::path(config.checkpoint.dir) / kLast).string();
  ipq.ipq.stage_updates = {4};
  ipq.ipq.kmeans_iterations = 4;
  ipq.ipq.keep_best = false;
  TaskTrainer plain(ipq, *local, {.quantize = true, .resume = true, .stop_requested = {}});
  plain->run();
  ipq.checkpoint.dir = (dir.path() / mine("pairs_taught")).string();
  ipq.ipq.teacher = {ipq.checkpoint.init_from};
  TaskTrainer taught(ipq, *local, {.quantize = true, .resume = true, .stop_requested = {}});
  taught->run();
  EXPECT_NE(parameter_values(taught->module()), parameter_values(plain->module()));
  ipq.checkpoint.dir = (dir.path() / mine("wrong")).string();
  ipq.ipq.teacher = {dir.teacher().string()};
  EXPECT_THAT([&] { TaskTrainer(ipq, *local, {.quantize = true, .resume = true, .stop_requested = {}}); },
              testing::ThrowsMessage<UsageError>(HasSubstr("no model of task sentence_prediction")));
  RunConfig vectors = embedding_config(dir, mine("vectors"));
  vectors.data.path = config.data.path;
  vectors.task.embedding.teacher = ipq.checkpoint.init_from;
  vectors.checkpoint.init_from = ipq.checkpoint.init_from;
  TaskTrainer embedding(vectors, *local, {});
  EXPECT_EQ(embedding->validate_now().sample_size, 120);
  EXPECT_NEAR(embedding->validate_now().at("cosine_min"), 1.0, 1e-6);
}

TEST(BertRun, AMaskedLmLearnsFromATeacher) {
  const TeacherDir dir;
  RunConfig ipq = bert_config(dir.path(), "mlm_taught", TaskType::masked_lm);
  ipq.checkpoint.init_from = dir.teacher().string();
  ipq.ipq.stage_updates = {4};
  ipq.ipq.kmeans_iterations = 4;
  ipq.ipq.teacher = {dir.teacher().string()};
  ipq.ipq.teacher_weight = 1.0;
  TaskTrainer taught(ipq, comm(), {.quantize = true, .resume = true, .stop_requested = {}});
  EXPECT_EQ(taught->run(), Outcome::finished);
}

/// The pooler of a checkpoint without classes is where a classifier of BERT's begins.
TEST(BertRun, TheClassifierKeepsAPretrainedPooler) {
  const TeacherDir dir;
  const auto local = make_local_communicator();
  if (comm().is_root()) write_pairs(dir.path());
  comm().barrier();
  StateDict state = load_state(dir.teacher());
  const std::string pooler = "classification_heads.sentence_classification_head.dense.weight";
  OwnedTensor values({32, 32}, DType::f32, host_memory());
  std::iota(values.view().as<float>(), values.view().as<float>() + 32 * 32, 1.0f);
  state.tensors["parameters/" + pooler] = std::move(values);
  const fs::path pretrained = dir.path() / (mine("pooler") + ".h5");
  save_state(pretrained, state);
  RunConfig config = bert_config(dir.path(), mine("begun"), TaskType::sentence_prediction);
  config.data.path = (dir.path() / "pairs").string();
  config.checkpoint.init_from = pretrained.string();
  TaskTrainer begun(config, *local, {});
  const ParameterStore& store = begun->module().parameters();
  EXPECT_EQ(store.values_of(*store.find(pooler))[5], 6.0f);
}

}  // namespace
}  // namespace qn::test
