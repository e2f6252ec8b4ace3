// Whole runs that classify sentences: from scratch and from a pretrained model, the same on any number of ranks,
// resumed, quantized, packed, and asked about lines of text.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <regex>
#include <sstream>

#include "core/file_kind.h"
#include "data/prepare_table.h"
#include "shared_dir.h"
#include "support/test_comm.h"
#include "support/tolerance.h"
#include "tasks/sentence_prediction.h"
#include "tiny_run.h"

namespace qn::test {
namespace {

using testing::HasSubstr;

/// Sentences of 3 to 12 words of the corpus; which of two words is among them, twice, is their label, or a number.
std::string tiny_sentence(RandomStream& random, uint64_t& draw, bool first) {
  const auto below = [&](int64_t n) { return static_cast<int64_t>(random.uniform(draw++) * static_cast<double>(n)); };
  std::string text;
  for (int64_t i = 1 + below(5); i > 0; --i) text += fmt::format("w{} ", 10 + below(50));
  text += first ? "w1 w1" : "w2 w2";
  for (int64_t i = below(5); i > 0; --i) text += fmt::format(" w{}", 10 + below(50));
  return text;
}

void write_table(const std::filesystem::path& path, int samples, uint64_t seed, bool pairs, bool numbers) {
  std::ofstream out(path);
  RandomStream random({.seed = seed, .purpose = Purpose::test});
  uint64_t draw = 0;
  out << (pairs ? "sentence1\tsentence2\tlabel\n" : "sentence\tlabel\n");
  for (int i = 0; i < samples; ++i) {
    const bool first = random.uniform(draw++) < 0.6, other = random.uniform(draw++) < 0.5;
    out << tiny_sentence(random, draw, first) << '\t';
    if (pairs) out << tiny_sentence(random, draw, other) << '\t';
    if (numbers)
      out << (first ? 1.5 : -0.5) << '\n';
    else
      out << (pairs ? (first == other ? "same" : "different") : (first ? "yes" : "no")) << '\n';
  }
}

/// `dir`/`name`: a prepared table, with the dictionary of the tiny corpus and, if `labels` is not empty, these classes
/// ("no yes").
void prepare_tiny_table(const std::filesystem::path& dir, const std::string& name, bool pairs, bool numbers,
                        const std::string& labels = {}) {
  const auto table = [&](const char* split, int samples, uint64_t seed) {
    const auto path = dir / (name + "." + split + ".tsv");
    write_table(path, samples, seed, pairs, numbers);
    return path;
  };
  PrepareTableOptions options;
  if (!labels.empty()) {
    options.label_dict = dir / (name + ".labels.txt");
    std::ofstream out(options.label_dict);
    std::istringstream in(labels);
    for (std::string label; in >> label;) out << label << " 1\n";
  }
  options.text.train = table("train", 240, 11);
  options.text.valid = {table("valid", 61, 12)};
  options.text.test = {table("test", 40, 13)};
  options.text.destdir = dir / name;
  options.text.srcdict = dir / "data" / "dict.txt";
  options.regression = numbers;
  prepare_table(options);
}

/// `dir`/singles: single sentences whose classes are called as those of the pairs.
void prepare_singles_called_as_pairs(const std::filesystem::path& dir) {
  PrepareTableOptions options;
  for (const std::string split : {"train", "valid"}) {
    std::string text = read_text_file(dir / ("sentences." + split + ".tsv"));
    text = std::regex_replace(text, std::regex("\tyes\n"), "\tsame\n");
    text = std::regex_replace(text, std::regex("\tno\n"), "\tdifferent\n");
    std::ofstream(dir / ("singles." + split + ".tsv")) << text;
  }
  options.text.train = dir / "singles.train.tsv";
  options.text.valid = {dir / "singles.valid.tsv"};
  options.text.destdir = dir / "singles";
  options.text.srcdict = dir / "data" / "dict.txt";
  prepare_table(options);
}

/// A tiny corpus with tables beside it.
class TableDir : public SharedDir {
 public:
  TableDir() {
    if (comm().is_root()) {
      prepare_tiny_table(path(), "sentences", false, false);
      prepare_tiny_table(path(), "pairs", true, false);
      prepare_tiny_table(path(), "numbers", false, true);
    }
    comm().barrier();
  }
};

RunConfig sentence_config(const std::filesystem::path& dir, const std::string& name, const std::string& data) {
  RunConfig c = tiny_config(dir, name);
  c.model = ModelConfig(ModelType::roberta);
  c.model.layers = 2;
  c.model.embed_dim = 32;
  c.model.ffn_dim = 64;
  c.model.heads = 2;
  c.model.max_positions = 40;
  c.model.dropout = c.model.attention_dropout = c.model.pooler_dropout = 0.1;
  c.task = TaskConfig(TaskType::sentence_prediction);
  c.data.path = (dir / data).string();
  c.data.tokens_per_sample = 40;
  c.data.max_tokens = 120;
  c.data.required_multiple = 1;
  c.optimizer = {.name = OptimizerKind::adam, .beta2 = 0.98, .eps = 1e-6, .weight_decay = 0.01, .clip_norm = 0.0};
  c.schedule = {.name = Schedule::polynomial, .lr = 0.01, .warmup_updates = 3, .total_updates = 60};
  c.quant_noise.pq = 0.1;
  c.train.max_updates = 30;
  c.train.validate_every_updates = 10;
  return c;
}

std::string mine(const std::string& name) { return fmt::format("{}_{}", name, comm().rank()); }
constexpr auto kLast = "checkpoint_last.h5";
constexpr auto kOutput = "classification_heads.sentence_classification_head.out_proj.weight";

TEST(SentenceRun, LearnsTheSameOnAnyNumberOfRanks) {
  const TableDir dir;
  const auto local = make_local_communicator();
  for (const std::string data : {"sentences", "pairs", "numbers"}) {
    SCOPED_TRACE(data);
    TaskTrainer alone(sentence_config(dir.path(), mine("alone_" + data), data), *local, {});
    ASSERT_EQ(alone->run(), Outcome::finished);
    const Evaluation& found = alone->validate_now();
    EXPECT_EQ(found.sample_size, 61);
    EXPECT_EQ(found.decisive().name, data == "numbers" ? "pearson" : "accuracy");
    EXPECT_GT(found.decisive().value, data == "pairs" ? 0.3 : 0.8);
    TaskTrainer together(sentence_config(dir.path(), "together_" + data, data), comm(), {});
    ASSERT_EQ(together->run(), Outcome::finished);
    EXPECT_TRUE(
        close(parameter_values(together->module()), parameter_values(alone->module()), 10 * kTrajectoryTolerance));
    EXPECT_TRUE(close(together->validate_now().loss, found.loss, 1e-3));
    EXPECT_NEAR(together->validate_now().decisive().value, found.decisive().value, 1e-3);
  }
}

TEST(SentenceRun, ResumesBitExactly) {
  const TableDir dir;
  const auto local = make_local_communicator();
  RunConfig config = sentence_config(dir.path(), mine("straight"), "pairs");
  TaskTrainer straight(config, *local, {});
  ASSERT_EQ(straight->run(), Outcome::finished);
  config.checkpoint.dir = (dir.path() / mine("stopped")).string();
  for (const int stop : {4, 13, 0})
    TaskTrainer(config, *local, {.quantize = false, .resume = true, .stop_requested = stop_at(stop)})->run();
  TaskTrainer rest(config, *local, {});
  ASSERT_EQ(rest->update(), 30);
  EXPECT_EQ(parameter_values(rest->module()), parameter_values(straight->module()));
}

TEST(SentenceRun, KeepsTheCheckpointOfTheHighestMetric) {
  const TableDir dir;
  const auto local = make_local_communicator();
  RunConfig config = sentence_config(dir.path(), mine("best"), "sentences");
  config.task.sentences.metric = SentenceMetric::mcc;
  TaskTrainer trainer(config, *local, {});
  trainer->run();
  EXPECT_EQ(trainer->validate_now().decisive().name, "mcc");
  const ModelFile best = load_model_file(std::filesystem::path(config.checkpoint.dir) / "checkpoint_best.h5");
  const double found = trainer.task().evaluate_module(best.module(), cpu_kernels(), *local, DType::f32).at("mcc");
  EXPECT_GE(found, trainer->validate_now().at("mcc"));
}

TEST(SentenceRun, StartsFromAPretrainedModel) {
  const TableDir dir;
  const auto local = make_local_communicator();
  RunConfig pretraining = sentence_config(dir.path(), mine("pretrained"), "data");
  pretraining.task = TaskConfig(TaskType::masked_lm);
  pretraining.model.untie_output = true;  // of no consequence: the head stays behind
  TaskTrainer pretrained(pretraining, *local, {});
  pretrained->run();
  RunConfig config = sentence_config(dir.path(), mine("finetuned"), "sentences");
  config.checkpoint.init_from = (std::filesystem::path(pretraining.checkpoint.dir) / kLast).string();
  TaskTrainer finetuned(config, *local, {});
  const auto value = [](TaskTrainer& trainer, const std::string& name) {
    const Parameter* p = trainer->module().parameters().find(name);
    return p == nullptr ? std::vector<float>() : trainer->module().parameters().values_of(*p);
  };
  const std::string table = "encoder.sentence_encoder.embed_tokens.weight", head = kOutput;
  EXPECT_EQ(value(finetuned, table), value(pretrained, table));
  RunConfig scratch = config;
  scratch.checkpoint.init_from.clear();
  scratch.checkpoint.dir = (dir.path() / mine("scratch")).string();
  TaskTrainer drawn(scratch, *local, {});
  EXPECT_EQ(value(finetuned, head), value(drawn, head));
  EXPECT_NE(value(finetuned, table), value(drawn, table));
  finetuned->run();
  // From a classifier of the same classes its head goes on; for other classes another one begins.
  const auto next = [&](const std::string& name, const std::string& data) {
    RunConfig c = sentence_config(dir.path(), mine(name), data);
    c.checkpoint.init_from = (std::filesystem::path(config.checkpoint.dir) / kLast).string();
    return std::make_unique<TaskTrainer>(c, *local, TrainerOptions{});
  };
  EXPECT_EQ(value(*next("same", "sentences"), head), value(finetuned, head));
  EXPECT_EQ(value(*next("other", "pairs"), head), value(drawn, head));
  // What is to be compressed must be all there.
  RunConfig compressed = sentence_config(dir.path(), mine("compressed"), "sentences");
  compressed.checkpoint.init_from = (std::filesystem::path(pretraining.checkpoint.dir) / kLast).string();
  EXPECT_THROW(TaskTrainer(compressed, *local, {.quantize = true, .resume = true, .stop_requested = {}}), Error);
}

TEST(SentenceRun, HeadsGoByTheNamesOfClasses) {
  const TableDir dir;
  const auto local = make_local_communicator();
  if (comm().is_root()) {
    prepare_tiny_table(dir.path(), "ordered", false, false, "yes no");
    prepare_tiny_table(dir.path(), "reversed", false, false, "no yes");
    prepare_tiny_table(dir.path(), "more", false, false, "yes no perhaps");
    prepare_tiny_table(dir.path(), "pairs_too", true, false, "different same");
    prepare_singles_called_as_pairs(dir.path());
  }
  comm().barrier();
  auto dense_run =
      std::make_unique<TaskTrainer>(sentence_config(dir.path(), mine("dense"), "ordered"), *local, TrainerOptions{});
  TaskTrainer& dense = *dense_run;
  ASSERT_EQ(dense->run(), Outcome::finished);
  const auto go_on = [&](const std::string& name, const std::string& data, const std::string& from, bool quantize) {
    RunConfig c = sentence_config(dir.path(), mine(name), data);
    c.checkpoint.init_from = (dir.path() / mine(from) / kLast).string();
    c.ipq.updates_per_stage = 2;
    c.ipq.kmeans_iterations = 2;
    c.ipq.stages = {".*(fc[12]|self_attn)"};
    return std::make_unique<TaskTrainer>(c, *local,
                                         TrainerOptions{.quantize = quantize, .resume = true, .stop_requested = {}});
  };
  const auto head = [](TaskTrainer& trainer) {
    const Parameter* p = trainer->module().parameters().find(kOutput);
    std::vector<float> values = trainer->module().parameters().values_of(*p);
    return std::pair(std::vector(values.begin(), values.begin() + 32), std::vector(values.begin() + 32, values.end()));
  };
  for (const bool quantize : {true, false}) {
    SCOPED_TRACE(quantize);
    const auto trainer = go_on(quantize ? "ipq" : "finetuned", "reversed", "dense", quantize);
    EXPECT_EQ(head(*trainer).first, head(dense).second);
    EXPECT_EQ(head(*trainer).second, head(dense).first);
    EXPECT_NEAR((*trainer)->validate_now().decisive().value, dense->validate_now().decisive().value, 1e-6);
  }
  const auto expect_refused = [&](const std::string& data, const std::string& from, const std::string& message) {
    EXPECT_THAT([&] { go_on("refused", data, from, true); }, testing::ThrowsMessage<Error>(HasSubstr(message)));
  };
  expect_refused("more", "dense", "for the classes yes, no, these data have the classes yes, no, perhaps");
  expect_refused("numbers", "dense", "for the classes yes, no, these data have numbers");
  TaskTrainer of_pairs(sentence_config(dir.path(), mine("of_pairs"), "pairs_too"), *local, {});
  of_pairs->run();
  expect_refused("singles", "of_pairs", "for pairs of sentences, these data have single sentences");
  // A run goes on with the classes that it began with.
  dense_run.reset();
  RunConfig other = sentence_config(dir.path(), mine("dense"), "reversed");
  EXPECT_THAT([&] { TaskTrainer(other, *local, {}); },
              testing::ThrowsMessage<Error>(HasSubstr("began with the classes yes, no, in this order")));
}

TEST(SentenceRun, IsQuantizedPackedEvaluatedAndAsked) {
  const TableDir dir;
  if (comm().is_root()) {
    const auto local = make_local_communicator();
    TaskTrainer(sentence_config(dir.path(), "dense", "pairs"), *local, {})->run();
  }
  comm().barrier();
  RunConfig config = sentence_config(dir.path(), "ipq", "pairs");
  config.checkpoint.init_from = (dir.path() / "dense" / kLast).string();
  config.ipq.updates_per_stage = 3;
  config.ipq.kmeans_iterations = 5;
  config.ipq.stages = {".*embed_tokens", ".*(fc[12]|self_attn)", "classification_heads.*dense"};
  TaskTrainer trainer(config, comm(), {.quantize = true, .resume = true, .stop_requested = {}});
  ASSERT_EQ(trainer->run(), Outcome::finished);
  trainer->round_weights(packed_storage(config.ipq));
  const auto path = dir.path() / "model.safetensors";
  const auto bare = dir.path() / "bare.safetensors";
  if (comm().is_root()) {
    EXPECT_EQ(write_packed_file(path, trainer, config), predicted_bytes(trainer, config));
    config.ipq.vocabulary = false;
    EXPECT_LT(write_packed_file(bare, trainer, config), std::filesystem::file_size(path));
  }
  comm().barrier();
  const ModelFile file = load_model_file(path);
  EXPECT_TRUE(
      agree(trainer.task().evaluate_module(file.module(), cpu_kernels(), comm(), DType::f32), trainer->validate_now()));
  EvalConfig scored;
  scored.data = config.data.path;
  scored.split = "valid";
  const EvalReport report = file.task->score_data(scored, cpu_kernels(), comm(), DType::f32);
  EXPECT_THAT(report.result, HasSubstr("accuracy"));
  EXPECT_EQ(std::get<double>(report.fields[1].value), trainer->validate_now().at("accuracy"));

  const std::vector<std::string> lines{"w10 w1 w1\tw1 w1 w12", "w2 w2\tnever seen"};
  const auto said = file.task->predict(config.data.path, lines, cpu_kernels(), DType::f32);
  ASSERT_EQ(said.size(), 2u);
  const auto unaided = file.task->predict("", lines, cpu_kernels(), DType::f32);  // by the words in the file
  for (size_t i = 0; i < said.size(); ++i) EXPECT_EQ(unaided[i].probabilities, said[i].probabilities);
  EXPECT_THAT([&] { load_model_file(bare).task->predict("", lines, cpu_kernels(), DType::f32); },
              testing::ThrowsMessage<UsageError>(HasSubstr("carries no vocabulary")));
  EXPECT_EQ(load_model_file(bare).task->predict(config.data.path, lines, cpu_kernels(), DType::f32)[0].label,
            said[0].label);
  for (const Prediction& prediction : said) {
    double sum = 0.0, largest = 0.0;
    std::string likeliest;
    for (const auto& [label, p] : prediction.probabilities) {
      sum += p;
      if (p > largest) likeliest = label;
      largest = std::max(largest, p);
    }
    EXPECT_NEAR(sum, 1.0, 1e-9);
    EXPECT_EQ(prediction.label, likeliest);
  }
  // Whatever else is asked beside it, and however many batches that takes.
  std::vector<std::string> many;
  for (int i = 0; i < 600; ++i) many.push_back(lines[static_cast<size_t>(i % 2)] + (i % 3 == 0 ? " w2" : ""));
  const auto all = file.task->predict(config.data.path, many, cpu_kernels(), DType::f32);
  ASSERT_EQ(all.size(), many.size());
  for (size_t i : {size_t{1}, size_t{2}, size_t{599}}) {
    const auto alone = file.task->predict(config.data.path, std::span(&many[i], 1), cpu_kernels(), DType::f32);
    EXPECT_EQ(all[i].label, alone[0].label);
    for (size_t c = 0; c < alone[0].probabilities.size(); ++c)
      EXPECT_NEAR(all[i].probabilities[c].second, alone[0].probabilities[c].second, 1e-5);
  }

  const auto expect_refused = [&](const std::string& data, const std::string& line, const std::string& message) {
    EXPECT_THAT([&] { file.task->predict(data, std::vector{line}, cpu_kernels(), DType::f32); },
                testing::ThrowsMessage<Error>(HasSubstr(message)));
  };
  expect_refused(config.data.path, "w1", "two sentences with a tabulator");
  expect_refused(config.data.path, "w1\t\xff", "line 1");
  EXPECT_THAT(
      [&] { file.task->predict(config.data.path, std::vector<std::string>{"w1\t\xff"}, cpu_kernels(), DType::f32, 7); },
      testing::ThrowsMessage<Error>(HasSubstr("line 8")));
  expect_refused((dir.path() / "sentences").string(), "w1", "other labels");
  scored.data = (dir.path() / "numbers").string();
  EXPECT_THAT([&] { file.task->score_data(scored, cpu_kernels(), comm(), DType::f32); },
              testing::ThrowsMessage<Error>(HasSubstr("other labels")));
}

TEST(SentenceConfig, SaysWhatIsWrong) {
  const TableDir dir;
  RunConfig config = sentence_config(dir.path(), "x", "numbers");
  config.task.sentences.metric = SentenceMetric::f1;
  EXPECT_THAT([&] { make_task(config); }, testing::ThrowsMessage<UsageError>(HasSubstr("task.metric: f1")));
  config.task.sentences.metric = SentenceMetric::automatic;
  EXPECT_EQ(preview_task(config, 100)->module().parameters().find(kOutput)->shape, (Shape{2, 32}));
  config.data.path = "";
  EXPECT_THAT([&] { make_task(config); }, testing::ThrowsMessage<UsageError>(HasSubstr("prepare --table")));
  EXPECT_THAT(
      [] {
        read_config<RunConfig>(config_tree_from_text(
            "{model: {type: roberta}, task: {type: sentence_prediction, init_token: 7}}", "x.yaml"));
      },
      testing::ThrowsMessage<UsageError>(HasSubstr("'task.init_token' must be the id of a special symbol")));
}

}  // namespace
}  // namespace qn::test
