// Every file of configs/ is a valid configuration, and the variants of a run agree in what makes them comparable.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "models/language_model.h"
#include "models/sentence_encoder.h"
#include "tasks/pruning.h"
#include "tasks/run_config.h"

namespace qn {
namespace {

const std::filesystem::path kConfigs = std::filesystem::path(QN_SOURCE_DIR) / "configs";

RunConfig read(const std::string& name) {
  return read_config<RunConfig>(load_config_tree((kConfigs / (name + ".yaml")).string(), {}));
}

/// Not a run: rules for `ipq.rules`.
bool is_run(const std::filesystem::path& path) {
  return path.extension() == ".yaml" && path.filename() != "fairseq_quantization.yaml";
}

TEST(Configs, AllAreValid) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kConfigs)) {
    if (!is_run(entry.path())) continue;
    SCOPED_TRACE(entry.path().string());
    EXPECT_NO_THROW(read(entry.path().stem().string()));
    ++count;
  }
  EXPECT_GE(count, 18);
}

TEST(Configs, EveryRunHasItsOwnFolder) {
  std::vector<std::string> folders;
  for (const auto& entry : std::filesystem::directory_iterator(kConfigs))
    if (is_run(entry.path())) folders.push_back(read(entry.path().stem().string()).checkpoint.dir);
  std::sort(folders.begin(), folders.end());
  EXPECT_EQ(std::adjacent_find(folders.begin(), folders.end()), folders.end());
}

int64_t tokens_per_update(const RunConfig& c) { return c.train.micro_batches * c.data.max_tokens; }

TEST(Configs, EightGpusTrainThePapersRecipe) {
  const RunConfig paper = read("wikitext103"), gpus = read("wikitext103_8gpu");
  EXPECT_EQ(tokens_per_update(paper), 73728);
  EXPECT_EQ(tokens_per_update(gpus), 73728);
  EXPECT_EQ(gpus.train.micro_batches % 8, 0);
  EXPECT_EQ(gpus.train.precision, Precision::bf16);
  EXPECT_EQ(gpus.train.max_updates, paper.train.max_updates);
  EXPECT_EQ(gpus.schedule.warmup_updates, paper.schedule.warmup_updates);
  EXPECT_EQ(gpus.quant_noise.pq, 0.0);
}

TEST(Configs, EightGpusNoiseAndCompressionFollowThePaper) {
  const RunConfig paper = read("wikitext103_noise"), noise = read("wikitext103_8gpu_noise");
  EXPECT_EQ(noise.quant_noise.pq, paper.quant_noise.pq);
  EXPECT_EQ(noise.quant_noise.groups, paper.quant_noise.groups);
  EXPECT_EQ(noise.train.precision, Precision::bf16);
  EXPECT_EQ(tokens_per_update(noise), 73728);
  const RunConfig paper_ipq = read("wikitext103_ipq"), ipq = read("wikitext103_8gpu_ipq");
  EXPECT_EQ(ipq.train.precision, Precision::bf16);
  EXPECT_EQ(ipq.ipq.updates_per_stage, 4500);
  EXPECT_EQ(ipq.ipq.updates_per_stage, paper_ipq.ipq.updates_per_stage);
  EXPECT_EQ(ipq.data.tokens_per_sample, 2944);
  EXPECT_EQ(ipq.schedule.lr, paper_ipq.schedule.lr);
  EXPECT_EQ(ipq.schedule.warmup_updates, 0);
  EXPECT_EQ(ipq.quant_noise.pq, paper.quant_noise.pq);
}

/// Numbers of parameters: reference 4 has those of 16 and 8 layers.
TEST(Configs, SharingAndPruningMakeThePapersModelSmaller) {
  constexpr int64_t kVocabulary = 267744, kPaper = 246933504, kLayer = 12596224;
  const auto parameters = [](RunConfig config) {
    prune_config(config);
    return make_language_model(config.model, kVocabulary, config.data.tokens_per_sample)->parameters().elements();
  };
  EXPECT_EQ(parameters(read("wikitext103_noise")), kPaper);
  RunConfig pruned = read("wikitext103_noise");
  pruned.checkpoint.layers_to_keep = "every-other";
  EXPECT_EQ(parameters(pruned), kPaper - 8 * kLayer);
  EXPECT_EQ(parameters(read("wikitext103_share")), kPaper - 8 * kLayer);
  EXPECT_EQ(parameters(read("wikitext103_share_ipq")), kPaper - 8 * kLayer);
  EXPECT_EQ(parameters(read("wikitext103_share_prune_ipq")), kPaper - 12 * kLayer);
  EXPECT_EQ(read("wikitext103_share").model.layerdrop, 0.2);
  EXPECT_EQ(read("wikitext103_share_prune_ipq").model.layerdrop, 0.0);
  EXPECT_EQ(read("wikitext103_share_prune_ipq").quant_noise.pq, read("wikitext103_noise").quant_noise.pq);
  EXPECT_EQ(read("wikitext103_share_prune_ipq").ipq.updates_per_stage, 4500);
}

/// The commands of fairseq's README for quantization noise (reference 9), and its sizes (reference 5.8).
TEST(Configs, RobertaFollowsFairseqsExample) {
  constexpr int64_t kVocabulary = 50265, kTied = 124'696'665, kOwnOutput = 38'603'520, kProjection = 589'824;
  const RunConfig base = read("roberta_base"), noise = read("roberta_base_noise"), rte = read("rte_base");
  const auto parameters = [](const RunConfig& config) {
    return make_sentence_encoder(config.model, kVocabulary, 0, {.masked_lm = true})->parameters().elements();
  };
  EXPECT_EQ(parameters(base), kTied + kOwnOutput);
  EXPECT_EQ(parameters(noise), kTied + kOwnOutput + kProjection);
  EXPECT_EQ(noise.quant_noise.pq, 0.2);
  EXPECT_EQ(noise.model.layerdrop, 0.2);
  EXPECT_EQ(noise.task.type, TaskType::masked_lm);
  EXPECT_EQ(noise.optimizer.beta2, 0.98);
  EXPECT_EQ(noise.optimizer.eps, 1e-6);
  EXPECT_EQ(noise.schedule.name, Schedule::polynomial);
  EXPECT_EQ(noise.train.max_updates, 125000);
  EXPECT_EQ(rte.task.type, TaskType::sentence_prediction);
  EXPECT_EQ(rte.schedule.total_updates, 2036);
  EXPECT_EQ(rte.optimizer.weight_decay, 0.1);
  EXPECT_EQ(read("rte_base_noise").quant_noise.pq, 0.2);
}

TEST(Configs, MoreBandsThanAModelPutsTogetherAreRefused) {
  const auto bands = [](int cutoffs) {
    std::string list;
    for (int i = 1; i <= cutoffs; ++i) list += (i > 1 ? ", " : "") + std::to_string(10 * i);
    const std::string text = "model:\n  adaptive: {input: true, softmax: true, cutoffs: [" + list + "]}\n";
    return read_config<RunConfig>(config_tree_from_text(text, "x.yaml"));
  };
  EXPECT_EQ(bands(7).model.adaptive.cutoffs.size(), 7u);
  EXPECT_THAT([&] { bands(8); }, testing::ThrowsMessage<Error>(testing::HasSubstr("at most 8")));
}

}  // namespace
}  // namespace qn
