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
void write_bars(const fs::path& folder, const std::string& split, int64_t count, uint64_t seed) {
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
                        writer.add(std::as_bytes(std::span(pixels)), kSize, kSize, label);
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
  c.train.max_updates = 60;
  c.train.validate_every_updates = 20;
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

TEST(ImageRun, ResumesBitExactly) {
  const BarsDir dir;
  const auto local = make_local_communicator();
  RunConfig config = bars_config(dir, mine("straight"));
  TaskTrainer straight(config, *local, {});
  ASSERT_EQ(straight->run(), Outcome::finished);
  config.checkpoint.dir = (dir / mine("stopped")).string();
  for (const int stop : {4, 13, 0})
    TaskTrainer(config, *local, {.quantize = false, .resume = true, .stop_requested = stop_at(stop)})->run();
  TaskTrainer rest(config, *local, {});
  ASSERT_EQ(rest->update(), 60);
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
