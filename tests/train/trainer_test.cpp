// Whole runs: resuming is bit-exact wherever a run was stopped, ranks share the same training, packed files compute
// what the model in memory does.
#include "train/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>

#include "compress/packed_model.h"
#include "compress/representation.h"
#include "core/fault_point.h"
#include "core/file_io.h"
#include "data/split_checksum.h"
#include "support/capture.h"
#include "support/test_comm.h"
#include "support/tolerance.h"
#include "tasks/model_file.h"
#include "tasks/scoring.h"
#include "tiny_run.h"
#include "train/checkpoint_file.h"

namespace qn::test {
namespace {

using std::filesystem::path;

class TrainerTest : public testing::Test {
 protected:
  void SetUp() override { prepare_tiny_corpus(dir_.path()); }

  /// Trains one dense model and returns its checkpoint.
  std::filesystem::path dense_checkpoint() {
    TinyTrainer trainer(tiny_config(dir_.path(), "dense"), *local_, {});
    EXPECT_EQ(trainer.run(), Outcome::finished);
    return dir_ / "dense" / "checkpoint_last.h5";
  }

  TempDir dir_;
  std::unique_ptr<Communicator> local_ = make_local_communicator();
};

TEST_F(TrainerTest, LearnsSomething) {
  RunConfig config = tiny_config(dir_.path(), "run");
  config.train.max_updates = 60;
  TinyTrainer trainer(config, *local_, {});
  const double before = trainer.validate_now().at("ppl");
  trainer.run();
  EXPECT_LT(trainer.validate_now().at("ppl"), 0.7 * before);
}

TEST_F(TrainerTest, ResumeIsBitExact) {
  for (const OptimizerKind kind : {OptimizerKind::nag, OptimizerKind::adam}) {
    const std::string optimizer = name_of(kind);
    RunConfig config = tiny_config(dir_.path(), "straight_" + optimizer);
    config.optimizer.name = kind;
    if (kind == OptimizerKind::adam) config.schedule.lr = 1e-3;
    TinyTrainer straight(config, *local_, {});
    ASSERT_EQ(straight.run(), Outcome::finished);
    for (const int stop : {1, 5, 7}) {
      config.checkpoint.dir = (dir_ / fmt::format("stopped_{}_{}", optimizer, stop)).string();
      {
        TinyTrainer first(config, *local_, {.quantize = false, .resume = true, .stop_requested = stop_at(stop)});
        ASSERT_EQ(first.run(), Outcome::stopped);
        ASSERT_EQ(first.update(), stop);
      }
      TinyTrainer second(config, *local_, {});
      ASSERT_EQ(second.update(), stop);
      ASSERT_EQ(second.run(), Outcome::finished);
      EXPECT_EQ(parameter_values(second.model()), parameter_values(straight.model())) << optimizer << " at " << stop;
    }
  }
}

TEST_F(TrainerTest, ResumeWithLayerDropIsBitExact) {
  RunConfig config = tiny_config(dir_.path(), "straight");
  config.model.layerdrop = 0.5;
  config.optimizer.missing_gradient = MissingGradient::skip;
  TinyTrainer straight(config, *local_, {});
  ASSERT_EQ(straight.run(), Outcome::finished);
  config.checkpoint.dir = (dir_ / "stopped").string();
  {
    TinyTrainer first(config, *local_, {.quantize = false, .resume = true, .stop_requested = stop_at(5)});
    ASSERT_EQ(first.run(), Outcome::stopped);
  }
  TinyTrainer second(config, *local_, {});
  ASSERT_EQ(second.update(), 5);
  ASSERT_EQ(second.run(), Outcome::finished);
  EXPECT_EQ(parameter_values(second.model()), parameter_values(straight.model()));
  EXPECT_EQ(second.validate_now().loss, straight.validate_now().loss);
}

/// Ranges of activations are watched as well, so that an update leaves traces in more than parameters.
TEST_F(TrainerTest, AnAbandonedUpdateLeavesNoTrace) {
  RunConfig config = tiny_config(dir_.path(), "straight");
  config.quant_noise.activations = Activations::both;
  TinyTrainer straight(config, *local_, {});
  ASSERT_EQ(straight.run(), Outcome::finished);
  // Up to four questions an update: before the first micro-batch of the run, and anywhere in later updates.
  for (const int question : {1, 7, 24, 33}) {
    config.checkpoint.dir = (dir_ / fmt::format("abandoned_{}", question)).string();
    {
      TinyTrainer first(config, *local_,
                        {.quantize = false, .resume = true, .stop_requested = {}, .abandon_update = stop_at(question)});
      ASSERT_EQ(first.run(), Outcome::stopped);
      ASSERT_GE(first.update(), (question - 1) / 4);
      ASSERT_LT(first.update(), straight.update());
    }
    TinyTrainer second(config, *local_, {});
    ASSERT_EQ(second.run(), Outcome::finished);
    EXPECT_EQ(second.update(), straight.update());
    EXPECT_EQ(parameter_values(second.model()), parameter_values(straight.model())) << question;
    EXPECT_EQ(second.validate_now().loss, straight.validate_now().loss) << question;
  }
}

TEST_F(TrainerTest, ResumesFromOlderCheckpointWhenTheNewestIsDamaged) {
  RunConfig config = tiny_config(dir_.path(), "run");
  config.checkpoint.save_every_epochs = 0;
  config.checkpoint.save_every_updates = 4;
  config.checkpoint.keep_updates = -1;
  config.train.validate_every_updates = 0;
  std::vector<float> straight;
  {
    TinyTrainer trainer(config, *local_, {});
    trainer.run();
    straight = parameter_values(trainer.model());
  }
  // The newest state has several names: damage one, remove the others.
  std::filesystem::remove(dir_ / "run" / "checkpoint_2_12.h5");
  std::filesystem::remove(dir_ / "run" / "checkpoint_best.h5");
  const auto last = dir_ / "run" / "checkpoint_last.h5";
  std::filesystem::resize_file(last, std::filesystem::file_size(last) / 2);
  TinyTrainer resumed(config, *local_, {});
  ASSERT_EQ(resumed.update(), 8);
  resumed.run();
  EXPECT_EQ(parameter_values(resumed.model()), straight);
}

TEST_F(TrainerTest, SavesByTimeAndKeepsTheBest) {
  RunConfig config = tiny_config(dir_.path(), "run");
  config.checkpoint.save_every_epochs = 0;
  config.checkpoint.save_every_minutes = 1e-9;  // after every update
  config.checkpoint.keep_best = 2;
  config.train.validate_every_updates = 4;
  const auto last = dir_ / "run" / "checkpoint_last.h5";
  int64_t seen = -1;
  const auto look = [&] {  // before each micro-batch of a later update, the write of the one before may be under way
    if (std::filesystem::exists(last)) seen = load_state(last).integer("update");
    return false;
  };
  TinyTrainer trainer(config, *local_, {.quantize = false, .resume = true, .stop_requested = look});
  ASSERT_EQ(trainer.run(), Outcome::finished);
  EXPECT_GE(seen, 9);
  size_t best = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir_ / "run"))
    best += entry.path().filename().string().starts_with("checkpoint_best_");
  EXPECT_EQ(best, 2U);
  EXPECT_FALSE(std::filesystem::exists(dir_ / "run" / "checkpoint_1_4.h5"));
}

TEST_F(TrainerTest, ASnapshotIsOfItsMoment) {
  RunConfig config = tiny_config(dir_.path(), "fast");
  config.checkpoint.save_every_updates = 4;
  config.checkpoint.keep_updates = -1;
  config.train.validate_every_updates = 0;
  TinyTrainer(config, *local_, {.quantize = false, .stop_requested = stop_at(4)}).run();  // nothing goes on
  const StateDict fast = load_state(dir_ / "fast" / "checkpoint_1_4.h5");
  for (const std::string what : {"file.write/checkpoint_1_4.h5:1+=wait5", "checkpoint.copying=wait500"}) {
    config.checkpoint.dir = (dir_ / what.substr(0, 10)).string();
    set_faults(what);  // training goes on meanwhile
    TinyTrainer(config, *local_, {}).run();
    set_faults("");
    const StateDict slow = load_state(path(config.checkpoint.dir) / "checkpoint_1_4.h5");
    ASSERT_EQ(slow.tensors.size(), fast.tensors.size());
    for (const auto& [name, tensor] : fast.tensors) {
      const Tensor &a = tensor.view(), &b = slow.tensors.at(name).view();
      ASSERT_EQ(a.bytes(), b.bytes()) << name;
      EXPECT_EQ(std::memcmp(a.data, b.data, a.bytes()), 0) << name << " in " << what;
    }
  }
}

TEST_F(TrainerTest, AFullDiskCostsNothing) {
  RunConfig config = tiny_config(dir_.path(), "straight");
  config.checkpoint.save_every_updates = 1;
  TinyTrainer straight(config, *local_, {});
  straight.run();
  config.checkpoint.dir = (dir_ / "full").string();
  int asked = 0;
  const auto fills_and_empties = [&asked] {
    ++asked;
    if (asked == 3) inject_file_faults([](FileStep, const std::filesystem::path&) { return ENOSPC; });
    if (asked == 9) inject_file_faults({});
    return false;
  };
  {
    TinyTrainer trainer(config, *local_, {.quantize = false, .resume = true, .stop_requested = fills_and_empties});
    ASSERT_EQ(trainer.run(), Outcome::finished);
  }
  const StateDict saved = load_state(dir_ / "full" / "checkpoint_last.h5");
  EXPECT_EQ(saved.integer("update"), 12);
  TinyTrainer again(config, *local_, {});
  EXPECT_EQ(parameter_values(again.model()), parameter_values(straight.model()));
  std::ifstream metrics(dir_ / "full" / "metrics.jsonl");
  int64_t records = 0;
  for (std::string line; std::getline(metrics, line);) records += line.find("\"kind\":\"train\"") != std::string::npos;
  EXPECT_EQ(records, 12);
}

TEST_F(TrainerTest, ARunWhoseEndCannotBeSavedFails) {
  RunConfig config = tiny_config(dir_.path(), "run");
  config.checkpoint.save_every_updates = 1;
  config.checkpoint.final_retry_minutes = 0.0;
  config.checkpoint.stop_after_failed_hours = 0.0;
  int asked = 0;
  const auto breaks = [&asked] {
    if (++asked == 4) inject_file_faults([](FileStep, const std::filesystem::path&) { return EROFS; });
    return false;
  };
  {
    TinyTrainer trainer(config, *local_, {.quantize = false, .resume = true, .stop_requested = breaks});
    const std::string error = error_of([&] { trainer.run(); });
    EXPECT_NE(error.find("Read-only file system"), std::string::npos) << error;
    EXPECT_NE(error.find("the newest good checkpoint is"), std::string::npos) << error;
    EXPECT_LE(trainer.update(), 6) << "the limit stops the run";
  }
  inject_file_faults({});
  const int64_t good = TinyTrainer(config, *local_, {}).update();
  EXPECT_TRUE(good == 2 || good == 3) << good << ": the write of update 3 may still have been under way";
}

TEST_F(TrainerTest, AFolderHoldsOneRun) {
  const auto dense = dense_checkpoint();
  const TrainerOptions quantize{.quantize = true, .resume = true, .stop_requested = {}};
  const auto error = [&](const RunConfig& config, const TrainerOptions& options) {
    return error_of([&] { TinyTrainer(config, *local_, options); });
  };
  EXPECT_NE(error(tiny_ipq_config(dir_.path(), "dense", dense), quantize).find("holds a run of `train`"),
            std::string::npos);
  RunConfig config = tiny_ipq_config(dir_.path(), "ipq", dense);
  ASSERT_EQ(TinyTrainer(config, *local_, quantize).run(), Outcome::finished);
  EXPECT_EQ(error(config, quantize), "");
  const auto copy = dir_ / "copy.h5";
  std::filesystem::copy(dense, copy);
  config.checkpoint.init_from = copy.string();
  EXPECT_EQ(error(config, quantize), "") << "the same weights under another name";
  config.checkpoint.init_from = (dir_ / "ipq" / "checkpoint_last.h5").string();
  EXPECT_NE(error(config, quantize).find("started from other weights"), std::string::npos);
  config.checkpoint.init_from = "";
  EXPECT_EQ(error(config, quantize), "");
  EXPECT_NE(error(tiny_config(dir_.path(), "ipq"), {}).find("holds a run of `quantize`"), std::string::npos);
}

TEST_F(TrainerTest, RefusesOtherDataAndOtherModels) {
  const RunConfig config = tiny_config(dir_.path(), "run");
  TinyTrainer(config, *local_, {.quantize = false, .resume = true, .stop_requested = stop_at(2)}).run();
  RunConfig other = config;
  other.data.max_tokens = 48;
  EXPECT_THROW(TinyTrainer(other, *local_, {}), Error);
  other = config;
  other.model.ffn_dim = 96;
  EXPECT_THROW(TinyTrainer(other, *local_, {}), Error);
}

TEST_F(TrainerTest, RefusesModelsThatDifferInNoShape) {
  const path dense = dense_checkpoint();
  const auto expect_refused = [&](const std::string& text, const std::function<void(ModelConfig&)>& change) {
    RunConfig resumed = tiny_config(dir_.path(), "dense"), started = tiny_config(dir_.path(), "other"),
              quantized = tiny_ipq_config(dir_.path(), "ipq", dense);
    started.checkpoint.init_from = dense.string();
    for (RunConfig* config : {&resumed, &started, &quantized}) {
      change(config->model);
      EXPECT_THAT(
          error_of([&] { TinyTrainer(*config, *local_, {.quantize = config == &quantized, .stop_requested = {}}); }),
          testing::HasSubstr("what the configuration says: " + text + "."));
    }
  };
  expect_refused("model.heads: 2 -> 4", [](ModelConfig& m) { m.heads = 4; });
  expect_refused("model.activation: relu -> gelu", [](ModelConfig& m) { m.activation = Activation::gelu; });
  expect_refused("model.layers: 2 -> 1", [](ModelConfig& m) { m.layers = 1; });
  expect_refused("model.prenorm: true -> false; model.scale_embedding: true -> false",
                 [](ModelConfig& m) { m.prenorm = m.scale_embedding = false; });
}

TEST_F(TrainerTest, TakesWeightsOfTheSameModel) {
  const path dense = dense_checkpoint();
  RunConfig config = tiny_config(dir_.path(), "other");
  config.checkpoint.init_from = dense.string();
  config.model.dropout = config.model.adaptive.dropout = 0.0;
  config.model.input_dim = config.model.output_dim = config.model.embed_dim;
  config.data.tokens_per_sample = 12;
  EXPECT_EQ(error_of([&] { TinyTrainer(config, *local_, {}); }), "");
  StateDict state = load_state(dense);
  state.texts.erase("config");
  save_state(dir_ / "plain.h5", state);
  config.checkpoint.init_from = (dir_ / "plain.h5").string();
  EXPECT_EQ(error_of([&] { TinyTrainer(config, *local_, {}); }), "") << "nothing tells how it was trained";
}

/// The file with two ids exchanged, and the checksums that `prepare` would write.
void exchange_tokens(const path& prefix) {
  std::vector<std::byte> ids = read_file_bytes(prefix.string() + ".bin");
  std::swap_ranges(ids.begin(), ids.begin() + 2, ids.begin() + 4);
  overwrite_file_bytes(prefix.string() + ".bin", 0, ids);
}

TEST_F(TrainerTest, RefusesOtherTokensOfTheSameLengths) {
  const RunConfig config = tiny_config(dir_.path(), "run");
  const TrainerOptions stopping{.quantize = false, .resume = true, .stop_requested = stop_at(2)};
  TinyTrainer(config, *local_, stopping).run();
  const path train = dir_ / "data" / "train";
  exchange_tokens(train);
  EXPECT_THAT([&] { TinyTrainer(config, *local_, {}); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("train.bin is not as it was prepared")));
  write_split_checksum(train, Dictionary::load(dir_ / "data" / "dict.txt").hash());
  EXPECT_THAT([&] { TinyTrainer(config, *local_, {}); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("not those that the checkpoint was trained on")));
  std::filesystem::remove(train.string() + ".sum");
  EXPECT_THAT([&] { TinyTrainer(config, *local_, {}); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("not those that the checkpoint was trained on")));
  // Checkpoints of older programs do not know the tokens.
  const path last = dir_ / "run" / "checkpoint_last.h5";
  StateDict state = load_state(last);
  state.texts.erase("train_checksum");
  state.texts.erase("valid_checksum");
  save_state(last, state);
  EXPECT_EQ(TinyTrainer(config, *local_, {}).run(), Outcome::finished);
}

TEST_F(TrainerTest, QuantizationResumesAnywhere) {
  const auto dense = dense_checkpoint();
  TinyTrainer straight(tiny_ipq_config(dir_.path(), "ipq", dense), *local_,
                       {.quantize = true, .resume = true, .stop_requested = {}});
  ASSERT_EQ(straight.run(), Outcome::finished);
  ASSERT_EQ(straight.ipq()->stages_done(), 3);
  // Questions: after 5 of 6 k-means iterations, after 4 updates, and so on: stops inside k-means and inside finetuning
  // of every stage.
  for (const int stop : {1, 3, 5, 6, 9, 12, 17, 21, 24, 26}) {
    const RunConfig config = tiny_ipq_config(dir_.path(), fmt::format("stopped_{}", stop), dense);
    {
      TinyTrainer first(config, *local_, {.quantize = true, .resume = true, .stop_requested = stop_at(stop)});
      ASSERT_EQ(first.run(), Outcome::stopped) << stop;
    }
    TinyTrainer second(config, *local_, {.quantize = true, .resume = true, .stop_requested = {}});
    ASSERT_EQ(second.run(), Outcome::finished);
    EXPECT_EQ(all_codes(second.model()), all_codes(straight.model())) << stop;
    EXPECT_EQ(parameter_values(second.model()), parameter_values(straight.model())) << stop;
  }
}

TEST_F(TrainerTest, PackedFileComputesWhatTheModelDoes) {
  const auto dense = dense_checkpoint();
  for (const bool dense_softmax : {false, true})
    for (const ValueStorage centroids : {ValueStorage::f16, ValueStorage::int8}) {
      SCOPED_TRACE(fmt::format("dense softmax {}, centroids {}", dense_softmax, name_of(centroids)));
      const std::string name = fmt::format("ipq_{}_{}", dense_softmax, name_of(centroids));
      RunConfig config = tiny_ipq_config(dir_.path(), name, dense);
      config.ipq.dense_softmax = dense_softmax;
      config.ipq.centroids = centroids;
      TinyTrainer trainer(config, *local_, {.quantize = true, .resume = true, .stop_requested = {}});
      ASSERT_EQ(trainer.run(), Outcome::finished);
      const PackedStorage storage = packed_storage(config.ipq);
      trainer.round_weights(storage);
      const auto path = dir_ / "model.safetensors";
      const uint64_t bytes = write_packed_file(path, trainer, config);
      EXPECT_EQ(bytes, std::filesystem::file_size(path));
      EXPECT_EQ(packed_sizes(SafetensorsReader(path)).total_bytes(), bytes);
      EXPECT_EQ(predicted_bytes(trainer, config), bytes);
      const ModelFile packed = load_model_file(path);
      const Evaluation memory = trainer.validate_now();
      EXPECT_EQ(trainer.task().evaluate_module(packed.module(), cpu_kernels(), *local_, DType::f32).loss, memory.loss);
      EXPECT_EQ(packed.module().weights().find("decoder.adaptive_softmax.tail.0.2.weight") != nullptr, dense_softmax);
    }
}

TEST_F(TrainerTest, HalfQuantizedCheckpointEvaluates) {
  const RunConfig config = tiny_ipq_config(dir_.path(), "half", dense_checkpoint());
  TinyTrainer trainer(config, *local_, {.quantize = true, .resume = true, .stop_requested = stop_at(16)});
  ASSERT_EQ(trainer.run(), Outcome::stopped);
  const ModelFile file = load_model_file(dir_ / "half" / "checkpoint_last.h5");
  const Evaluation score = trainer.task().evaluate_module(file.module(), cpu_kernels(), *local_, DType::f32);
  EXPECT_EQ(score.loss, trainer.validate_now().loss);
}

/// The built-in rules with another K.
void write_rules(const std::filesystem::path& path, int n_centroids) {
  std::ofstream(path) << fmt::format(
      "n_centroids:\n  Linear: {{key: in_features, value: {{\"*\": {0}}}}}\n"
      "  Embedding: {{key: embedding_dim, value: {{\"*\": {0}}}}}\n",
      n_centroids);
}

TEST_F(TrainerTest, CheckpointsKeepThePlanOfRulesThatAreGone) {
  const auto dense = dense_checkpoint(), rules = dir_ / "rules.yaml";
  write_rules(rules, 12);
  RunConfig config = tiny_ipq_config(dir_.path(), "straight", dense);
  config.ipq.rules = rules.string();
  config.ipq.updates_per_stage = 2;
  TinyTrainer straight(config, *local_, {.quantize = true, .resume = true, .stop_requested = {}});
  ASSERT_EQ(straight.run(), Outcome::finished);
  for (const bool gone : {true, false}) {
    SCOPED_TRACE(gone ? "gone" : "changed");
    write_rules(rules, 12);
    config.checkpoint.dir = (dir_ / (gone ? "gone" : "changed")).string();
    double loss = 0.0;
    {
      TinyTrainer first(config, *local_, {.quantize = true, .resume = true, .stop_requested = stop_at(12)});
      ASSERT_EQ(first.run(), Outcome::stopped);
      ASSERT_EQ(first.ipq()->stages_done(), 1);
      loss = first.validate_now().loss;
    }
    if (gone) {
      std::filesystem::remove(rules);
    } else {
      write_rules(rules, 6);
      EXPECT_THAT([&] { TinyTrainer(config, *local_, {.quantize = true, .resume = true, .stop_requested = {}}).run(); },
                  testing::ThrowsMessage<Error>(testing::HasSubstr("the rules have changed")));
    }
    const ModelFile file = load_model_file(std::filesystem::path(config.checkpoint.dir) / "checkpoint_last.h5");
    EXPECT_EQ(straight.task().evaluate_module(file.module(), cpu_kernels(), *local_, DType::f32).loss, loss);
    if (!gone) write_rules(rules, 12);
    TinyTrainer second(config, *local_, {.quantize = true, .resume = true, .stop_requested = {}});
    ASSERT_EQ(second.run(), Outcome::finished);
    EXPECT_EQ(all_codes(second.model()), all_codes(straight.model()));
    EXPECT_EQ(parameter_values(second.model()), parameter_values(straight.model()));
  }
}

TEST_F(TrainerTest, TablesAreQuantizedWithFrequentTokensInMind) {
  const auto dense = dense_checkpoint();
  const ModelFile original = load_model_file(dense);
  const auto weighted_error = [&](double exponent, uint64_t seed) {
    RunConfig config = tiny_ipq_config(dir_.path(), fmt::format("exponent_{}_{}", exponent, seed), dense);
    config.seed = seed;
    config.ipq.updates_per_stage = 0;
    config.ipq.frequency_exponent = exponent;
    TinyTrainer trainer(config, *local_, {.quantize = true, .resume = true, .stop_requested = {}});
    trainer.run();
    const auto counts = trainer.corpus().train().stream().counts(trainer.corpus().dictionary().size());
    double error = 0.0;
    for (const auto& weight : trainer.model().weights().all()) {
      if (weight->first_token() < 0) continue;
      std::vector<float> decoded(static_cast<size_t>(weight->rows() * weight->cols()));
      const QuantizedTensor tensor = quantized_tensor(*weight, trainer.model().parameters()).value();
      tensor.quantizer->decode(tensor, decoded.data());
      const auto wanted = original.module().weights().find(weight->name())->dense()->value.span<float>();
      for (size_t i = 0; i < decoded.size(); ++i) {
        const auto token = static_cast<size_t>(weight->first_token()) + i / static_cast<size_t>(weight->cols());
        error += std::pow(static_cast<double>(counts[token] + 1) * (decoded[i] - wanted[i]), 2);
      }
    }
    return error;
  };
  double weighted = 0.0, plain = 0.0;
  for (const uint64_t seed : {1, 2, 3}) {  // k-means of tables as small as these hangs on its beginning
    weighted += weighted_error(2.0, seed);
    plain += weighted_error(0.0, seed);
  }
  EXPECT_LT(weighted, 0.75 * plain);
}

TEST_F(TrainerTest, ObjectiveOfCentroidsFallsInFinetuning) {
  const auto dense = dense_checkpoint();
  RunConfig config = tiny_ipq_config(dir_.path(), "none", dense);
  config.ipq.updates_per_stage = 0;
  TinyTrainer without(config, *local_, {.quantize = true, .resume = true, .stop_requested = {}});
  without.run();
  config = tiny_ipq_config(dir_.path(), "some", dense);
  config.ipq.updates_per_stage = 30;
  TinyTrainer with(config, *local_, {.quantize = true, .resume = true, .stop_requested = {}});
  with.run();
  EXPECT_LT(with.validate_now().base2(), without.validate_now().base2());
}

}  // namespace
}  // namespace qn::test
