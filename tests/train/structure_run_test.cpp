// Whole runs of models whose layers share weights, and of pruned ones: the same on any number of ranks, resumed,
// quantized, packed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "compress/explain.h"
#include "shared_dir.h"
#include "support/test_comm.h"
#include "support/tolerance.h"
#include "tasks/pruning.h"
#include "tiny_run.h"

namespace qn::test {
namespace {

using testing::HasSubstr;

RunConfig shared_config(const std::filesystem::path& dir, const std::string& name) {
  RunConfig c = tiny_config(dir, name);
  c.model.layers = 6;
  c.model.share_layers = 2;
  c.model.layerdrop = 0.3;
  return c;
}

RunConfig shared_ipq_config(const std::filesystem::path& dir, const std::string& name,
                            const std::filesystem::path& from) {
  RunConfig c = tiny_ipq_config(dir, name, from);
  c.model = shared_config(dir, name).model;
  c.ipq.activations = Activations::input;
  return c;
}

std::string mine(const std::string& name) { return fmt::format("{}_{}", name, comm().rank()); }

TEST(SharedRun, TrainsTheSameOnAnyNumberOfRanks) {
  const SharedDir dir;
  const auto local = make_local_communicator();
  TinyTrainer alone(shared_config(dir.path(), mine("alone")), *local, {});
  ASSERT_EQ(alone.run(), Outcome::finished);
  for (const bool overlap : {false, true}) {
    RunConfig config = shared_config(dir.path(), fmt::format("together_{}", overlap));
    config.comm.overlap = overlap;
    config.comm.bucket_mib = 0.01;
    TinyTrainer together(config, comm(), {});
    ASSERT_EQ(together.run(), Outcome::finished);
    EXPECT_TRUE(close(parameter_values(together.model()), parameter_values(alone.model()), kTrajectoryTolerance));
    EXPECT_TRUE(close(together.validate_now().loss, alone.validate_now().loss, kSummationTolerance));
  }
}

TEST(SharedRun, ResumesBitExactly) {
  const SharedDir dir;
  const auto local = make_local_communicator();
  TinyTrainer straight(shared_config(dir.path(), mine("straight")), *local, {});
  ASSERT_EQ(straight.run(), Outcome::finished);
  const RunConfig config = shared_config(dir.path(), mine("stopped"));
  TinyTrainer(config, *local, {.quantize = false, .resume = true, .stop_requested = stop_at(7)}).run();
  TinyTrainer rest(config, *local, {});
  ASSERT_EQ(rest.update(), 7);
  ASSERT_EQ(rest.run(), Outcome::finished);
  EXPECT_EQ(parameter_values(rest.model()), parameter_values(straight.model()));
}

TEST(SharedRun, IsPackedOnceAsPredictedAndComputesTheSame) {
  const SharedDir dir;
  const auto local = make_local_communicator();
  TinyTrainer dense(shared_config(dir.path(), mine("dense")), *local, {});
  ASSERT_EQ(dense.run(), Outcome::finished);
  const auto from = dir.path() / mine("dense") / "checkpoint_last.h5";
  const RunConfig config = shared_ipq_config(dir.path(), mine("ipq"), from);
  const uint64_t predicted = [&] {
    TinyTrainer first(config, *local, {.quantize = true, .resume = true, .stop_requested = stop_at(9)});
    EXPECT_EQ(first.run(), Outcome::stopped);
    return predicted_bytes(first, config);
  }();
  TinyTrainer trainer(config, *local, {.quantize = true, .resume = true, .stop_requested = {}});
  ASSERT_EQ(trainer.run(), Outcome::finished);
  trainer.round_weights(packed_storage(config.ipq));
  const auto path = dir.path() / (mine("model") + ".safetensors");
  EXPECT_EQ(write_packed_file(path, trainer, config), predicted);
  EXPECT_EQ(std::filesystem::file_size(path), predicted);

  const ModelFile file = load_model_file(path);
  EXPECT_EQ(file.parameters, dense.model().parameters().elements());
  LanguageModeling& task = trainer.task();
  const Evaluation found = task.evaluate_module(file.module(), cpu_kernels(), *local, trainer.dtype());
  EXPECT_TRUE(agree(found, trainer.validate_now()));
  const SafetensorsReader stored(path);
  EXPECT_EQ(stored.metadata_at("version"), "4");
  EXPECT_THAT(stored.metadata_at("model"), HasSubstr("layers: 6\n"));
  EXPECT_THAT(stored.metadata_at("model"), HasSubstr("share_layers: 2\n"));
  EXPECT_TRUE(stored.contains("decoder.layers.4.fc1.codes"));
  EXPECT_TRUE(stored.contains("decoder.layers.5.fc1.input.range")) << "ranges are of each use";
  for (const StoredTensor& t : stored.tensors())
    if (!t.name.ends_with(".range")) {
      for (const char* shared : {"layers.1.", "layers.3.", "layers.5."})
        EXPECT_EQ(t.name.find(shared), std::string::npos) << t.name;
    }
  const std::string text = explain(trainer.plan(), file.module());
  EXPECT_THAT(text, HasSubstr("decoder.layers.5 = decoder.layers.4\n"));
  EXPECT_THAT(explain_json(trainer.plan(), file.module()), HasSubstr(R"("decoder.layers.1":"decoder.layers.0")"));
}

TEST(SharedRun, WeightsOfAnotherSharingAreRefused) {
  const SharedDir dir;
  const auto local = make_local_communicator();
  RunConfig config = shared_config(dir.path(), mine("dense"));
  config.train.max_updates = 1;
  TinyTrainer(config, *local, {}).run();
  RunConfig other = config;
  other.model.share_layers = 3;
  other.checkpoint.dir = (dir.path() / mine("other")).string();
  other.checkpoint.init_from = config.checkpoint.dir + "/checkpoint_last.h5";
  EXPECT_THAT([&] { TinyTrainer(other, *local, {}); },
              testing::ThrowsMessage<Error>(HasSubstr("model.share_layers: 2 -> 3")));
  other.model = config.model;
  other.model.layerdrop = 0.0;  // not a matter of architecture
  EXPECT_NO_THROW(TinyTrainer(other, *local, {}));
}

TEST(SharedRun, FilesOfModelsThatShareNothingAreThoseOfOlderPrograms) {
  const SharedDir dir;
  const auto local = make_local_communicator();
  RunConfig config = tiny_config(dir.path(), mine("dense"));
  config.model.layerdrop = 0.2;
  config.train.max_updates = 1;
  TinyTrainer trainer(config, *local, {});
  ASSERT_EQ(trainer.run(), Outcome::finished);
  const auto path = dir.path() / (mine("model") + ".safetensors");
  write_packed_file(path, trainer, config);
  const SafetensorsReader stored(path);
  EXPECT_EQ(stored.metadata_at("version"), "3");
  EXPECT_THAT(stored.metadata_at("model"), testing::Not(HasSubstr("layerdrop")));
  EXPECT_THAT(stored.metadata_at("model"), testing::Not(HasSubstr("share_layers")));
  EXPECT_NO_THROW(load_model_file(path));
}

/// A run of a network with four layers, and what is known of it.
class PrunedRun : public testing::Test {
 protected:
  RunConfig config(const std::string& name) const {
    RunConfig c = tiny_config(dir_.path(), mine(name));
    c.model.layers = 4;
    c.model.layerdrop = 0.2;
    c.train.max_updates = 4;
    return c;
  }
  std::string trained() {
    const RunConfig c = config("trained");
    TinyTrainer(c, *local_, {}).run();
    return c.checkpoint.dir + "/checkpoint_last.h5";
  }
  /// A run that goes on with some layers of `from`.
  RunConfig pruned_config(const std::string& name, const std::string& from, const std::string& layers) const {
    RunConfig c = config(name);
    c.checkpoint.init_from = from;
    c.checkpoint.layers_to_keep = layers;
    prune_config(c);
    return c;
  }
  RunConfig ipq_config(const std::string& name, const std::string& from, const std::string& layers) const {
    RunConfig c = tiny_ipq_config(dir_.path(), mine(name), from);
    c.model = config(name).model;
    c.checkpoint.layers_to_keep = layers;
    prune_config(c);
    return c;
  }
  double loss_of(const ModelFile& file) {
    TinyTrainer any(config("any"), *local_, {.quantize = false, .resume = false, .dry = true, .stop_requested = {}});
    return any.task().evaluate_module(file.module(), cpu_kernels(), *local_, DType::f32).loss;
  }

  SharedDir dir_;
  std::unique_ptr<Communicator> local_ = make_local_communicator();
};

TEST_F(PrunedRun, EvaluatesAsAModelBuiltWithTheseLayers) {
  const std::string checkpoint = trained();
  const ModelFile full = load_model_file(checkpoint), pruned = load_model_file(checkpoint, cpu_kernels(), "1,3");
  RunConfig small = config("small");
  small.model.layers = 2;
  TinyTrainer built(small, *local_, {.quantize = false, .resume = false, .dry = true, .stop_requested = {}});
  for (const auto& p : built.model().parameters().all()) {
    std::string name = p->name;
    if (const size_t at = name.find("layers.1."); at != std::string::npos) name.replace(at, 9, "layers.3.");
    if (const size_t at = name.find("layers.0."); at != std::string::npos) name.replace(at, 9, "layers.1.");
    const Parameter* from = full.module().parameters().find(name);
    ASSERT_NE(from, nullptr) << name;
    built.model().parameters().set_values(*p, full.module().parameters().values_of(*from));
  }
  EXPECT_EQ(loss_of(pruned), built.validate_now().loss);
  EXPECT_EQ(pruned.parameters, built.model().parameters().elements());
  EXPECT_NE(loss_of(pruned), loss_of(full));
  EXPECT_EQ(loss_of(load_model_file(checkpoint, cpu_kernels(), "0,1,2,3")), loss_of(full));
}

TEST_F(PrunedRun, GoesOnFromTheseLayersAndResumes) {
  const std::string checkpoint = trained();
  const RunConfig config = pruned_config("finetuned", checkpoint, "every-other");
  EXPECT_EQ(config.model.layers, 2);
  std::vector<float> straight;
  {
    TinyTrainer trainer(config, *local_, {});
    EXPECT_EQ(trainer.validate_now().loss, loss_of(load_model_file(checkpoint, cpu_kernels(), "0,2")));
    ASSERT_EQ(trainer.run(), Outcome::finished);
    straight = parameter_values(trainer.model());
  }
  RunConfig stopped = config;
  stopped.checkpoint.dir += "_stopped";
  TinyTrainer(stopped, *local_, {.quantize = false, .resume = true, .stop_requested = stop_at(2)}).run();
  RunConfig other = pruned_config("other", checkpoint, "1,3");
  other.checkpoint.dir = stopped.checkpoint.dir;
  EXPECT_THAT([&] { TinyTrainer(other, *local_, {}); },
              testing::ThrowsMessage<Error>(HasSubstr("started from layers 'every-other' of its source, this names "
                                                      "layers '1,3'")));
  TinyTrainer rest(stopped, *local_, {});
  ASSERT_EQ(rest.update(), 2);
  ASSERT_EQ(rest.run(), Outcome::finished);
  EXPECT_EQ(parameter_values(rest.model()), straight);
  const ModelFile file = load_model_file(config.checkpoint.dir + "/checkpoint_last.h5");
  EXPECT_EQ(file.parameters, std::ssize(straight));
}

TEST_F(PrunedRun, WrongNumbersOfLayersAreRefused) {
  const std::string checkpoint = trained();
  EXPECT_THAT([&] { pruned_config("x", checkpoint, "0,4"); },
              testing::ThrowsMessage<UsageError>(HasSubstr("no layer 4")));
  RunConfig twice = pruned_config("twice", checkpoint, "every-other");
  prune_config(twice);  // as if model.layers were what is left
  EXPECT_THAT([&] { TinyTrainer(twice, *local_, {}); },
              testing::ThrowsMessage<UsageError>(HasSubstr("model.layers must be 4")));
  RunConfig small = config("small");
  small.model.layers = 2;
  small.checkpoint.init_from = checkpoint;
  small.checkpoint.layers_to_keep = "0,3";  // a description of what is left
  prune_config(small);
  EXPECT_NO_THROW(TinyTrainer(small, *local_, {}));
}

/// Packed after pruning, and pruned after packing.
TEST_F(PrunedRun, IsQuantizedAndPackedAsTheSmallerModel) {
  const std::string checkpoint = trained();
  RunConfig config = ipq_config("ipq", checkpoint, "0,2");
  TinyTrainer trainer(config, *local_, {.quantize = true, .resume = true, .stop_requested = {}});
  ASSERT_EQ(trainer.run(), Outcome::finished);
  trainer.round_weights(packed_storage(config.ipq));
  const auto packed = dir_ / (mine("pruned") + ".safetensors");
  EXPECT_EQ(write_packed_file(packed, trainer, config), predicted_bytes(trainer, config));
  const ModelFile file = load_model_file(packed);
  EXPECT_TRUE(close(loss_of(file), trainer.validate_now().loss, kSummationTolerance));
  EXPECT_THAT(SafetensorsReader(packed).metadata_at("model"), HasSubstr("layers: 2\n"));
}

TEST_F(PrunedRun, PackedFilesArePrunedAsCheckpointsAre) {
  const std::string checkpoint = trained();
  RunConfig config = ipq_config("ipq", checkpoint, "");
  config.ipq.activations = Activations::both;
  TinyTrainer trainer(config, *local_, {.quantize = true, .resume = true, .stop_requested = {}});
  ASSERT_EQ(trainer.run(), Outcome::finished);
  trainer.round_weights(packed_storage(config.ipq));
  const auto packed = dir_ / (mine("full") + ".safetensors"), copy = dir_ / (mine("copy") + ".safetensors");
  write_packed_file(packed, trainer, config);
  const ModelFile pruned = load_model_file(packed, cpu_kernels(), "1,2");
  SafetensorsReader reader(packed);
  prune_packed(reader, "1,2");
  packed_copy(reader).write(copy);
  EXPECT_EQ(pruned.bytes, std::filesystem::file_size(copy));
  const ModelFile read = load_model_file(copy);
  EXPECT_EQ(loss_of(read), loss_of(pruned));
  EXPECT_EQ(read.parameters, pruned.parameters);
  EXPECT_EQ(packed_sizes(SafetensorsReader(copy)).total_bytes(), std::filesystem::file_size(copy));
  // Half quantized checkpoints know what is codes by their plan.
  const std::string half = config.checkpoint.dir + "/checkpoint_last.h5";
  const ModelFile from_checkpoint = load_model_file(half, cpu_kernels(), "1,2");
  EXPECT_TRUE(close(loss_of(from_checkpoint), loss_of(pruned), 1e-2)) << "but for what packing rounds";
}

TEST_F(PrunedRun, SharedLayersArePrunedInGroups) {
  RunConfig config = shared_config(dir_.path(), mine("shared"));
  config.train.max_updates = 2;
  TinyTrainer(config, *local_, {}).run();
  const std::string checkpoint = config.checkpoint.dir + "/checkpoint_last.h5";
  const ModelFile pruned = load_model_file(checkpoint, cpu_kernels(), "every-other");
  EXPECT_EQ(pruned.module().shared().size(), 2u);
  EXPECT_EQ(pruned.module().weights().find("decoder.layers.4.fc1.weight"), nullptr);
  EXPECT_NE(pruned.module().weights().find("decoder.layers.2.fc1.weight"), nullptr);
  EXPECT_EQ(loss_of(pruned), loss_of(load_model_file(checkpoint, cpu_kernels(), "0,1,4,5")));
  EXPECT_THAT([&] { load_model_file(checkpoint, cpu_kernels(), "0,2"); },
              testing::ThrowsMessage<UsageError>(HasSubstr("layers 0 to 1 have their weights in common")));
}

}  // namespace
}  // namespace qn::test
