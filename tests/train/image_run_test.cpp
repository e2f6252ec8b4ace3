// Whole runs of classifiers of images: training, the same on any number of ranks, resumed, quantized in stages, packed,
// and asked; from a teacher without labels' help.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "data/image_dataset.h"
#include "shared_dir.h"
#include "support/test_comm.h"
#include "support/tolerance.h"
#include "tasks/image_classification.h"
#include "tiny_run.h"
#include "train/checkpoint_file.h"

namespace qn::test {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

constexpr auto kLast = "checkpoint_last.h5";
constexpr int64_t kSize = 8;

std::string mine(const std::string& name) { return fmt::format("{}_{}", name, comm().rank()); }

/// Stripes in two directions and a chequerboard, with noise: a class each.
void write_bars(const fs::path& folder, const std::string& split, int64_t count, uint64_t seed, bool labelled = true) {
  write_image_split(folder, split, {.channels = 1, .classes = {"across", "down", "both"}},
                    [&](ImageSplitWriter& writer) {
                      const RandomStream random({.seed = seed, .purpose = Purpose::test});
                      uint64_t draw = 0;
                      for (int64_t i = 0; i < count; ++i) {
                        const auto label = static_cast<int32_t>(i % 3);
                        std::vector<uint8_t> pixels;
                        for (int64_t y = 0; y < kSize; ++y)
                          for (int64_t x = 0; x < kSize; ++x) {
                            const bool on = (label == 0 ? y : label == 1 ? x : x + y) % 2 == 0;
                            pixels.push_back(static_cast<uint8_t>((on ? 160.0 : 0.0) + 90.0 * random.uniform(draw++)));
                          }
                        writer.add(std::as_bytes(std::span(pixels)), kSize, kSize, labelled ? label : -1);
                      }
                    });
}

class BarsDir {
 public:
  BarsDir() {
    if (comm().is_root()) {
      fs::create_directories(dir_ / "bars");
      write_bars(dir_ / "bars", "train", 150, 1);
      write_bars(dir_ / "bars", "valid", 50, 2);
    }
    comm().barrier();
  }
  fs::path operator/(const std::string& name) const { return dir_ / name; }

 private:
  SharedDir dir_;
};

RunConfig bars_config(const BarsDir& dir, const std::string& name) {
  RunConfig c;
  c.seed = 3;
  c.model = ModelConfig(ModelType::efficientnet);
  c.model.width = 0.25;
  c.model.depth = 0.4;
  c.model.stem_stride = 1;
  c.model.dropout = 0.1;
  c.model.drop_path = 0.05;
  c.model.norm_momentum = 0.5;
  c.task = TaskConfig(TaskType::image_classification, ModelType::efficientnet);
  c.task.images.label_smoothing = 0.1;
  c.images.path = (dir / "bars").string();
  c.images.batch_size = 16;
  c.images.transform = {.size = kSize, .crop = 1.0, .mean = {90.0}, .std = {60.0}};
  c.images.augmentation.flip = 0.5;
  c.quant_noise = {.pq = 0.05, .block_size = 4, .groups = {"paper"}};
  c.optimizer.name = OptimizerKind::adam;
  c.schedule = {.name = Schedule::cosine, .lr = 0.01, .warmup_updates = 3};
  c.train.micro_batches = 2;
  c.train.max_updates = 24;
  c.train.validate_every_updates = 8;
  c.checkpoint.dir = (dir / name).string();
  return c;
}

std::vector<float> buffer_values(Module& module) {
  std::vector<float> all;
  for (const auto& b : module.buffers().all()) {
    const auto values = b->value.view().span<float>();
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

TEST(ImageRun, Learns) {
  if (comm().size() > 1) GTEST_SKIP() << "ranks that each learn alone show nothing new";
  const BarsDir dir;
  const auto local = make_local_communicator();
  RunConfig config = bars_config(dir, mine("learns"));
  config.train.max_updates = 120;
  TaskTrainer trainer(config, *local, {});
  ASSERT_EQ(trainer->run(), Outcome::finished);
  const Evaluation found = trainer->validate_now();
  EXPECT_EQ(found.decisive().name, "top1");
  EXPECT_EQ(found.sample_size, 50);
  EXPECT_GT(found.at("top1"), 0.8);
}

/// With an optimizer that does not divide by gradients: some are zero but for rounding (biases before normalisations).
TEST(ImageRun, LearnsTheSameOnAnyNumberOfRanks) {
  const BarsDir dir;
  const auto local = make_local_communicator();
  RunConfig config = bars_config(dir, mine("alone"));
  config.optimizer.name = OptimizerKind::sgd;
  config.optimizer.clip_norm = 1.0;
  config.schedule.lr = 0.01;
  config.train.max_updates = 8;
  config.train.validate_every_updates = 8;
  TaskTrainer alone(config, *local, {});
  ASSERT_EQ(alone->run(), Outcome::finished);
  config.checkpoint.dir = (dir / "together").string();
  config.images.workers = 0;  // who makes batches does not matter
  TaskTrainer together(config, comm(), {});
  ASSERT_EQ(together->run(), Outcome::finished);
  EXPECT_TRUE(close(parameter_values(together->module()), parameter_values(alone->module()), kSummationTolerance));
  EXPECT_TRUE(close(buffer_values(together->module()), buffer_values(alone->module()), kSummationTolerance));
}

/// Of R ranks with synchronised norms, R micro-batches are one of R times the size on one rank.
TEST(ImageRun, SynchronisedNormsAreThoseOfALargeBatch) {
  const BarsDir dir;
  const auto local = make_local_communicator();
  if (comm().is_root()) {
    fs::create_directories(dir / "even");
    write_bars(dir / "even", "train", 192, 1);
    write_bars(dir / "even", "valid", 32, 2);
  }
  comm().barrier();
  RunConfig config = bars_config(dir, mine("large"));
  config.images.path = (dir / "even").string();
  config.quant_noise.pq = config.model.dropout = config.model.drop_path = 0.0;
  config.optimizer.name = OptimizerKind::sgd;
  config.optimizer.clip_norm = 1.0;
  config.train.max_updates = 6;
  config.images.batch_size = 16 * comm().size();
  config.train.micro_batches = 1;
  TaskTrainer large(config, *local, {});
  ASSERT_EQ(large->run(), Outcome::finished);
  const auto on_all_ranks = [&](bool synchronize, const char* name) {
    RunConfig c = config;
    c.checkpoint.dir = (dir / name).string();
    c.images.batch_size = 16;
    c.train.micro_batches = comm().size();
    c.train.synchronize_norms = synchronize;
    TaskTrainer trainer(c, comm(), {});
    EXPECT_EQ(trainer->run(), Outcome::finished);
    return std::pair(parameter_values(trainer->module()), buffer_values(trainer->module()));
  };
  const auto synchronised = on_all_ranks(true, "synchronised"), own = on_all_ranks(false, "own");
  EXPECT_TRUE(close(synchronised.first, parameter_values(large->module()), kSummationTolerance));
  // The averages take in unbiased variances, whose denominator knows the size of the batch.
  EXPECT_TRUE(close(synchronised.second, buffer_values(large->module()), kSummationTolerance));
  EXPECT_EQ(own.first == synchronised.first, comm().size() == 1);
}

/// Micro-batches that not every rank has one of are no reason to wait for ever.
TEST(ImageRun, SynchronisedNormsTakeUpdatesOfAnySize) {
  const BarsDir dir;
  RunConfig config = bars_config(dir, "odd");
  config.train.synchronize_norms = true;
  config.train.micro_batches = comm().size() + 1;
  config.train.max_updates = 4;
  EXPECT_EQ(TaskTrainer(config, comm(), {})->run(), Outcome::finished);
}

/// A run of k-means alone, at `name`; returns what its trainer holds.
std::unique_ptr<TaskTrainer> at_once(RunConfig config, const BarsDir& dir, const std::string& name,
                                     Communicator& ranks) {
  config.checkpoint.init_from = (dir / "dense" / kLast).string();
  config.checkpoint.dir = (dir / name).string();
  config.ipq.stage_updates = {0};
  config.ipq.kmeans_iterations = 5;
  auto trainer = std::make_unique<TaskTrainer>(config, ranks,
                                               TrainerOptions{.quantize = true, .resume = true, .stop_requested = {}});
  EXPECT_EQ((*trainer)->run(), Outcome::finished);
  return trainer;
}

TEST(ImageRun, MeasuresNormsAfterKMeans) {
  const BarsDir dir;
  const auto local = make_local_communicator();
  RunConfig config = bars_config(dir, "dense");
  config.model = ModelConfig(ModelType::resnet);
  config.model.layers = 20;
  config.model.embed_dim = 8;
  config.task = TaskConfig(TaskType::image_classification, ModelType::resnet);
  config.train.max_updates = 40;
  ASSERT_EQ(TaskTrainer(config, comm(), {})->run(), Outcome::finished);
  const auto measured = at_once(config, dir, "measured", comm());
  const auto alone = at_once(config, dir, mine("measured_alone"), *local);
  EXPECT_TRUE(close(buffer_values((*measured)->module()), buffer_values((*alone)->module()), kSummationTolerance));
  // What the first normalisation sees depends on no other: it is the same however images are cut into batches.
  const auto first_norm = [](Module& module) {
    const auto& all = module.buffers().all();
    std::vector<float> values;
    for (const size_t i : {0, 1}) {
      const auto average = all[i]->value.view().span<float>();
      values.insert(values.end(), average.begin(), average.end());
    }
    return values;
  };
  RunConfig large = config;
  large.images.batch_size = 50;
  const auto in_large_batches = at_once(large, dir, "large", comm());
  EXPECT_TRUE(close(first_norm((*measured)->module()), first_norm((*in_large_batches)->module()), kSummationTolerance));
  config.ipq.freeze_norms = true;  // but not where they are measured
  const auto frozen = at_once(config, dir, "frozen", comm());
  EXPECT_EQ(buffer_values((*frozen)->module()), buffer_values((*measured)->module()));
  config.ipq.measure_norms = false;
  const auto kept = at_once(config, dir, "kept", comm());
  EXPECT_LT((*measured)->validate_now().loss, (*kept)->validate_now().loss);
}

TEST(ImageRun, FinetunesWithFrozenNorms) {
  const BarsDir dir;
  RunConfig config = bars_config(dir, "dense");
  ASSERT_EQ(TaskTrainer(config, comm(), {})->run(), Outcome::finished);
  config.ipq.freeze_norms = true;
  config.ipq.measure_norms = false;
  const auto start = at_once(config, dir, "start", comm());
  config.checkpoint.init_from = (dir / "dense" / kLast).string();
  config.checkpoint.dir = (dir / "tuned").string();
  config.ipq.kmeans_iterations = 5;
  config.ipq.stage_updates = {3};
  config.ipq.keep_best = false;
  TaskTrainer tuned(config, comm(), {.quantize = true, .resume = true, .stop_requested = {}});
  ASSERT_EQ(tuned->run(), Outcome::finished);
  EXPECT_EQ(buffer_values(tuned->module()), buffer_values((*start)->module()));
  EXPECT_NE(parameter_values(tuned->module()), parameter_values((*start)->module()));
}

TEST(ImageRun, FoldsNorms) {
  const BarsDir dir;
  RunConfig config = bars_config(dir, "dense");
  ASSERT_EQ(TaskTrainer(config, comm(), {})->run(), Outcome::finished);
  const auto trainer = at_once(config, dir, "kept", comm());
  const Evaluation found = (*trainer)->validate_now();
  const fs::path kept = dir / "kept.safetensors", folded = dir / "folded.safetensors";
  if (comm().is_root()) write_packed_file(kept, *trainer, config);
  RunConfig folding = config;
  folding.ipq.norms = NormStorage::fold;
  const auto second = at_once(folding, dir, "folding", comm());
  (*second)->round_weights(packed_storage(folding.ipq));
  EXPECT_NEAR((*second)->validate_now().loss, found.loss, 0.01 * found.loss) << "but for the rounding to fp16";
  if (comm().is_root()) {
    EXPECT_EQ(write_packed_file(folded, *second, folding), predicted_bytes(*second, folding));
    EXPECT_LT(fs::file_size(folded), fs::file_size(kept));
  }
  comm().barrier();
  const SafetensorsReader file(folded);
  EXPECT_TRUE(std::ranges::none_of(file.tensors(),
                                   [](const StoredTensor& t) { return t.name.find("running") != std::string::npos; }));
  const ModelFile model = load_model_file(folded);
  EXPECT_TRUE(agree(second->task().evaluate_module(model.module(), cpu_kernels(), comm(), DType::f32),
                    (*second)->validate_now()));
}

/// A teacher names what has no class; evaluation without classes tells how often two models agree.
TEST(ImageRun, LearnsWithoutClasses) {
  const BarsDir dir;
  RunConfig config = bars_config(dir, "dense");
  ASSERT_EQ(TaskTrainer(config, comm(), {})->run(), Outcome::finished);
  const std::string dense = (dir / "dense" / kLast).string();
  if (comm().is_root()) {
    fs::create_directories(dir / "unnamed");
    write_bars(dir / "unnamed", "train", 150, 1, false);
    write_bars(dir / "unnamed", "valid", 50, 2);
  }
  comm().barrier();
  const auto quantized = [&](const char* data, const char* name) {
    RunConfig c = config;
    c.images.path = (dir / data).string();
    c.checkpoint.init_from = dense;
    c.checkpoint.dir = (dir / name).string();
    c.ipq.teacher = {dense};
    c.ipq.teacher_weight = 1.0;
    c.ipq.optimizer.name = OptimizerKind::sgd;
    c.ipq.schedule.lr = 0.01;
    c.ipq.stage_updates = {3};
    c.ipq.kmeans_iterations = 3;
    TaskTrainer trainer(c, comm(), {.quantize = true, .resume = true, .stop_requested = {}});
    EXPECT_EQ(trainer->run(), Outcome::finished);
    return parameter_values(trainer->module());
  };
  EXPECT_TRUE(close(quantized("unnamed", "without"), quantized("bars", "with"), kSummationTolerance));
  const ModelFile model = load_model_file(dense);
  EvalConfig scored;
  scored.data = (dir / "unnamed").string();
  scored.split = "train";
  const auto score = [&] { return model.task->score_data(scored, cpu_kernels(), comm(), DType::f32); };
  EXPECT_THAT(score, testing::ThrowsMessage<UsageError>(HasSubstr("--teacher")));
  scored.teacher = dense;
  const EvalReport report = score();
  ASSERT_EQ(report.fields[1].name, "agreement");
  EXPECT_EQ(std::get<double>(report.fields[1].value), 1.0);
  RunConfig plain = config;
  plain.images.path = scored.data;
  plain.checkpoint.dir = (dir / "plain").string();
  EXPECT_THAT([&] { TaskTrainer(plain, comm(), {}); },
              testing::ThrowsMessage<UsageError>(HasSubstr("150 of 150 images have no class")));
}

TEST(ImageRun, ResumesBitExactly) {
  if (comm().size() > 1) GTEST_SKIP() << "ranks that each learn alone show nothing new";
  const BarsDir dir;
  const auto local = make_local_communicator();
  RunConfig config = bars_config(dir, mine("straight"));
  TaskTrainer straight(config, *local, {});
  ASSERT_EQ(straight->run(), Outcome::finished);
  config.checkpoint.dir = (dir / mine("stopped")).string();
  for (const int stop : {4, 11, 0})
    TaskTrainer(config, *local, {.quantize = false, .resume = true, .stop_requested = stop_at(stop)})->run();
  TaskTrainer rest(config, *local, {});
  ASSERT_EQ(rest->update(), config.train.max_updates);
  EXPECT_EQ(parameter_values(rest->module()), parameter_values(straight->module()));
  EXPECT_EQ(buffer_values(rest->module()), buffer_values(straight->module()));
}

TEST(ImageRun, IsQuantizedPackedEvaluatedAndAsked) {
  const BarsDir dir;
  RunConfig config = bars_config(dir, "dense");
  ASSERT_EQ(TaskTrainer(config, comm(), {})->run(), Outcome::finished);
  config.checkpoint.init_from = (dir / "dense" / kLast).string();
  config.checkpoint.dir = (dir / "ipq").string();
  config.ipq.teacher = {config.checkpoint.init_from};
  config.ipq.teacher_weight = 1.0;
  config.ipq.stage_updates = {8};
  config.ipq.kmeans_iterations = 5;
  config.ipq.keep_best = true;
  TaskTrainer trainer(config, comm(), {.quantize = true, .resume = true, .stop_requested = {}});
  ASSERT_EQ(trainer->run(), Outcome::finished);
  trainer->round_weights(packed_storage(config.ipq));
  EXPECT_EQ(trainer->plan().stages, 4) << "pointwise, depthwise, squeeze and excitation, classifier";
  EXPECT_EQ(trainer->plan().find("conv_stem.weight")->stage, -1);
  const fs::path path = dir / "model.safetensors";
  uint64_t bytes = 0;
  if (comm().is_root()) {
    bytes = write_packed_file(path, trainer, config);
    EXPECT_EQ(bytes, predicted_bytes(trainer, config));
  }
  comm().barrier();
  const ModelFile file = load_model_file(path);
  EXPECT_TRUE(
      agree(trainer.task().evaluate_module(file.module(), cpu_kernels(), comm(), DType::f32), trainer->validate_now()));
  EvalConfig scored;
  scored.data = config.images.path;
  scored.split = "valid";
  EXPECT_NEAR(std::get<double>(file.task->score_data(scored, cpu_kernels(), comm(), DType::f32).fields[1].value),
              trainer->validate_now().at("top1"), 1e-9);
  EXPECT_EQ(file.task->packed_metadata(), trainer.task().packed_metadata());
  const std::vector<std::string> lines{"a line"};
  EXPECT_THAT([&] { file.task->predict("", lines, cpu_kernels(), DType::f32); },
              testing::ThrowsMessage<UsageError>(HasSubstr("does not classify sentences")));
  EXPECT_THAT([&] { file.task->predict_images(lines, cpu_kernels(), DType::f32); },
              testing::ThrowsMessage<Error>(HasSubstr("a line")));
}

TEST(ImageRun, SaysWhatDoesNotFit) {
  const BarsDir dir;
  const auto local = make_local_communicator();
  RunConfig config = bars_config(dir, mine("wrong"));
  config.images.transform.mean = {1.0, 2.0, 3.0};
  EXPECT_THROW(make_task(config), UsageError);
  config = bars_config(dir, mine("wrong"));
  config.images.path.clear();
  EXPECT_THAT([&] { make_task(config); }, testing::ThrowsMessage<UsageError>(HasSubstr("data.path is not set")));
  if (comm().size() == 1) {  // a folder of its own, of other classes
    const auto other = [&](const char* split) {
      write_image_split(dir / "others", split, {.channels = 1, .classes = {"left", "right", "top"}},
                        [&](ImageSplitWriter& writer) {
                          const std::vector<uint8_t> grey(kSize * kSize, 100);
                          for (int32_t i = 0; i < 20; ++i)
                            writer.add(std::as_bytes(std::span(grey)), kSize, kSize, i % 3);
                        });
    };
    fs::create_directories(dir / "others");
    other("train");
    other("valid");
    RunConfig dense = bars_config(dir, "dense3");
    dense.train.max_updates = 2;
    TaskTrainer(dense, *local, {})->run();
    RunConfig ipq = bars_config(dir, "others_ipq");
    ipq.images.path = (dir / "others").string();
    ipq.checkpoint.init_from = (dir / "dense3" / kLast).string();
    EXPECT_THAT([&] { TaskTrainer(ipq, *local, {.quantize = true, .resume = true, .stop_requested = {}}); },
                testing::ThrowsMessage<Error>(HasSubstr("other classes (left, right, top)")));
  }
  config = bars_config(dir, mine("other"));
  config.train.max_updates = 2;
  TaskTrainer(config, *local, {})->run();
  config.images.batch_size = 8;
  EXPECT_THAT([&] { TaskTrainer(config, *local, {.quantize = false, .resume = true, .stop_requested = {}}); },
              testing::ThrowsMessage<Error>(HasSubstr("training batches differ")));
}

}  // namespace
}  // namespace qn::test
