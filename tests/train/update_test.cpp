// One update: against fairseq's trainer, the same on any number of ranks, and without memory from the system.
#include "train/update.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "compress/run_plan.h"
#include "core/special_tokens.h"
#include "golden_optimizer.h"
#include "models/golden_model.h"
#include "support/golden.h"
#include "support/test_comm.h"
#include "support/tolerance.h"
#include "tasks/language_modeling.h"

namespace qn::test {
namespace {

int64_t count_targets(const std::vector<int32_t>& targets) {
  return std::count_if(targets.begin(), targets.end(), [](int32_t t) { return t != kPadId; });
}

/// Token matrices that micro-batches point into.
struct Tokens {
  int64_t rows, cols;
  std::vector<int32_t> source, target;

  MicroBatch micro_batch(LanguageModel& model) const {
    return micro_batch_of(model, {rows, cols, source, target}, count_targets(target));
  }
};

// --- fairseq's trainer ---

void expect_parameters(const Hdf5File& file, const std::string& group, const LanguageModel& model) {
  for (const auto& p : model.parameters().all()) {
    if (p->name.ends_with("k_proj.bias")) continue;  // its gradient is rounding noise, which Adam makes visible
    EXPECT_TRUE(close(to_doubles(p->value), file.read<double>(group + "/" + p->name), kTrajectoryTolerance))
        << group << " " << p->name;
  }
}

void check_trainer(const Hdf5File& file, const std::string& group) {
  SCOPED_TRACE(group);
  const auto model = load_golden_model(file, group + "/model", DType::f32);
  const OptimizerConfig config = golden_optimizer_config(file, group);
  const auto optimizer = make_optimizer(config, model->parameters(), golden_initial_lr(file, group));
  UpdateRunner runner(*model, cpu_kernels(), comm(), {.clip_norm = config.clip_norm});
  const auto stored = [&](const char* name) { return file.read<double>(group + "/" + name); };
  const auto lr = stored("lr"), loss = stored("loss"), norm = stored("gnorm"), tokens = stored("sample_size");
  Tokens micro;
  for (size_t u = 0; u < lr.size(); ++u) {
    const std::string update = group + "/update_" + std::to_string(u + 1);
    const auto fetch = [&](int64_t i) {
      const std::string number = std::to_string(i);
      const Shape shape = file.shape(update + "/tokens_" + number);
      micro = {shape[0], shape[1], read_ids(file, update + "/tokens_" + number),
               read_ids(file, update + "/targets_" + number)};
      return micro.micro_batch(*model);
    };
    const UpdateResult result =
        runner.run(static_cast<int64_t>(u), file.int_attribute(update, "micro_batches"), fetch, *optimizer, lr[u]);
    EXPECT_TRUE(close(result.loss, loss[u], kLossTolerance)) << update;
    EXPECT_TRUE(close(result.grad_norm, norm[u], kGradientTolerance)) << update;
    EXPECT_EQ(static_cast<double>(result.sample_size), tokens[u]) << update;
    const std::string stored_parameters = group + "/params_after_" + std::to_string(u + 1);
    if (file.exists(stored_parameters)) expect_parameters(file, stored_parameters, *model);
  }
  EXPECT_TRUE(file.exists(group + "/params_after_" + std::to_string(lr.size()))) << "the end is not checked";
}

TEST(UpdateGolden, WholeUpdatesOfEveryTrainer) {
  QN_GOLDEN(path, "optimizers.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  std::set<OptimizerKind> optimizers;
  for (const std::string& group : file.members("")) {
    if (!file.exists(group + "/model")) continue;
    check_trainer(file, group);
    optimizers.insert(golden_optimizer_config(file, group).name);
  }
  EXPECT_EQ(optimizers, (std::set{OptimizerKind::adam, OptimizerKind::nag}));
}

// --- given gradients ---

/// A model without layers whose gradients are given by micro-batch and parameter; one target token each.
class GivenGradients : public LanguageModel {
 public:
  using Gradients = std::map<std::string, std::vector<float>>;
  explicit GivenGradients(std::vector<Gradients> by_micro_batch) : gradients_(std::move(by_micro_batch)) {
    for (const Gradients& gradients : gradients_)
      for (const auto& [name, values] : gradients)
        if (parameters().find(name) == nullptr) parameters().add(name, {static_cast<int64_t>(values.size())}, {});
  }
  /// Of the only micro-batch, from now on.
  void set(const Gradients& gradients) { gradients_ = {gradients}; }
  Tensor losses(Tape& tape, const TokenBatch&) override {
    Gradients& mine = gradients_[tape.pass().micro_batch];
    tape.on_backward([this, &tape, &mine] {
      for (auto& [name, values] : mine) {
        const Var parameter = parameters().find(name)->var(tape);
        const Tape::Slot slot = tape.slot(parameter);
        tape.k.axpy(slot.grad, view_of(values.data(), parameter.value.shape), 1.0, slot.beta);
      }
    });
    const Tensor loss = tape.arena.tensor({1}, DType::f64);
    tape.k.fill(loss, 2.0);
    return loss;
  }
  int64_t max_positions() const override { return 1; }
  UpdateResult update(Communicator& ranks, const UpdateOptions& options, Optimizer& optimizer, int64_t tokens = 1) {
    UpdateRunner runner(*this, cpu_kernels(), ranks, options);
    const auto fetch = [&](int64_t) { return micro_batch_of(*this, {}, tokens); };
    return runner.run(0, static_cast<int64_t>(gradients_.size()), fetch, optimizer, 0.5);
  }

 private:
  std::vector<Gradients> gradients_;
};

/// Keeps what an update hands to its optimizer.
class Recorder : public Optimizer {
 public:
  void step(ParameterStore&, const Kernels&, double, const StepDecision* decision) override {
    scale = decision->grad_scale;
  }
  void save(const ParameterStore&, StateDict&) const override {}
  void load(const ParameterStore&, const StateDict&) override {}
  double scale = -1.0;
};

TEST(UpdateGolden, Clipping) {
  QN_GOLDEN(path, "optimizers.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  const auto local = make_local_communicator();
  for (const std::string& name : file.members("clip")) {
    SCOPED_TRACE(name);
    const std::string group = "clip/" + name;
    GivenGradients::Gradients before;
    const std::string prefix = "before_";
    for (const std::string& dataset : file.members(group))
      if (dataset.starts_with(prefix)) before[dataset.substr(prefix.size())] = file.read<float>(group + "/" + dataset);
    ASSERT_FALSE(before.empty());
    GivenGradients model({before});
    model.parameters().allocate(DType::f32);
    Recorder recorder;
    const double max_norm = file.float_attribute(group, "max_norm");
    const UpdateResult result = model.update(*local, {.clip_norm = max_norm}, recorder);
    EXPECT_TRUE(close(result.grad_norm, file.read<double>(group + "/norm")[0], kOptimizerTolerance));
    EXPECT_EQ(result.clipped, recorder.scale < 1.0);
    for (auto& [tensor, values] : before) {
      for (float& v : values) v *= static_cast<float>(recorder.scale);
      EXPECT_TRUE(close(values, file.read<float>(group + "/after_" + tensor), kOptimizerTolerance)) << tensor;
    }
  }
}

TEST(Update, DividesByTheTokensOfAllMicroBatches) {
  GivenGradients model({{{"w", {4, 0}}}, {{"w", {8, 16}}}});
  model.parameters().allocate(DType::f32);
  Recorder recorder;
  const UpdateResult result = model.update(comm(), {}, recorder, 3);
  EXPECT_EQ(result.sample_size, 6);
  EXPECT_DOUBLE_EQ(result.loss, 4.0);
  EXPECT_DOUBLE_EQ(result.grad_norm, std::sqrt(12.0 * 12.0 + 16.0 * 16.0) / 6);
  EXPECT_DOUBLE_EQ(recorder.scale, 1.0 / 6);
  EXPECT_THAT(to_doubles(model.parameters().find("w")->slot.grad), testing::ElementsAre(12, 16));
}

TEST(Update, RanksAgreeOnMissingGradients) {
  // b has a gradient in the last micro-batch only, so with several ranks most of them do not see it; c has none.
  GivenGradients model({{{"a", {1}}}, {{"a", {1}}}, {{"a", {1}}}, {{"a", {1}}, {"b", {1}}}});
  model.parameters().add("c", {1}, {});
  model.parameters().allocate(DType::f32);
  for (const auto& p : model.parameters().all()) {
    p->value.as<float>()[0] = 1.0f;
    p->slot.grad.as<float>()[0] = 7.0f;  // left over from an earlier update
  }
  OptimizerConfig config;
  config.weight_decay = 0.1;
  config.missing_gradient = MissingGradient::skip;
  const auto optimizer = make_optimizer(config, model.parameters(), 0.5);
  const UpdateResult result = model.update(comm(), {.skip_missing = true}, *optimizer);
  EXPECT_DOUBLE_EQ(result.grad_norm, std::sqrt(4.0 * 4.0 + 1.0) / 4);
  const auto value = [&](const char* name) { return model.parameters().find(name)->value.as<float>()[0]; };
  EXPECT_FLOAT_EQ(value("a"), 0.95f - 1.99f * 0.5f);
  EXPECT_FLOAT_EQ(value("b"), 0.95f - 1.99f * 0.5f / 4);
  EXPECT_EQ(value("c"), 1.0f) << "not even decayed";
}

void expect_error(GivenGradients& model, int64_t tokens, const std::string& message) {
  model.parameters().allocate(DType::f32);
  for (const auto& p : model.parameters().all()) p->value.as<float>()[0] = 1.0f;
  const auto optimizer = make_optimizer({}, model.parameters(), 0.5);
  try {
    model.update(comm(), {.clip_norm = 0.1}, *optimizer, tokens);
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr(message));
  }
  for (const auto& p : model.parameters().all()) EXPECT_EQ(p->value.as<float>()[0], 1.0f) << p->name;
}

TEST(Update, GradientsThatAreNotFiniteAreAnErrorOnAllRanks) {
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    GivenGradients model({{{"w", {1}}}, {{"w", {bad}}}});
    expect_error(model, 1, "the gradient of update 1 is not finite");
  }
}

// One rank sees what is not finite, all decide alike.
TEST(Update, RanksSkipTogether) {
  GivenGradients model({{{"w", {1}}}, {{"w", {NAN}}}, {{"w", {1}}}, {{"w", {2}}}});
  model.parameters().allocate(DType::f32);
  const auto optimizer = make_optimizer({}, model.parameters(), 0.5);
  UpdateRunner runner(model, cpu_kernels(), comm(), {.skip_limit = 2});
  const auto run = [&] {
    return runner.run(
        0, 4, [&](int64_t) { return micro_batch_of(model, {}, 1); }, *optimizer, 0.5);
  };
  for (int64_t i = 1; i <= 2; ++i) {
    const UpdateResult result = run();
    EXPECT_TRUE(result.skipped);
    EXPECT_EQ(result.in_a_row, i);
  }
  EXPECT_EQ(model.parameters().find("w")->value.as<float>()[0], 0.0f);
  EXPECT_THROW(run(), Diverged);
  EXPECT_EQ(model.parameters().find("w")->value.as<float>()[0], 0.0f);
}

// What fp16 does about gradients that overflow does not depend on who computes them.
TEST(Update, HalfPrecisionSkipsUpdatesThatOverflowAndScalesTheLoss) {
  const float infinity = std::numeric_limits<float>::infinity();
  GivenGradients good({{{"w", {64, 0}}}}), bad({{{"w", {64, infinity}}}});
  for (GivenGradients* model : {&good, &bad}) model->parameters().allocate(DType::f32);
  OptimizerConfig config;
  config.momentum = 0.0;
  const auto local = make_local_communicator();
  const auto optimizer = make_optimizer(config, good.parameters(), 0.5);
  const UpdateOptions options{.dtype = DType::f16, .loss_scaling = {.initial = 32.0, .growth_interval = 2}};
  const auto of_bad = [&](int64_t) { return micro_batch_of(bad, {}, 1); };
  const auto fetch = [&](int64_t) { return micro_batch_of(good, {}, 1); };
  const auto weight = [&](LanguageModel& model) { return model.parameters().find("w")->value.as<float>()[0]; };

  UpdateRunner runner(bad, cpu_kernels(), *local, options);
  const UpdateResult skipped = runner.run(0, 1, of_bad, *optimizer, 0.5);
  EXPECT_TRUE(skipped.skipped);
  EXPECT_EQ(skipped.loss_scale, 16.0);
  EXPECT_EQ(weight(bad), 0.0f);
  StateDict state;
  runner.save(state);
  EXPECT_EQ(state.real("update/skipped"), 1.0);

  UpdateRunner resumed(good, cpu_kernels(), *local, options);
  resumed.load(state);
  const UpdateResult first = resumed.run(1, 1, fetch, *optimizer, 0.5);
  EXPECT_FALSE(first.skipped);
  EXPECT_EQ(first.grad_norm, 64.0 / 16.0);
  EXPECT_EQ(first.loss_scale, 16.0);
  EXPECT_EQ(weight(good), -0.5f * 64.0f / 16.0f);
  EXPECT_EQ(resumed.run(2, 1, fetch, *optimizer, 0.5).loss_scale, 32.0) << "two good updates";
}

// An update that is skipped leaves no trace: those around it are what they would be without it.
TEST(Update, SkippedUpdatesLeaveNoTrace) {
  for (const OptimizerKind kind : {OptimizerKind::nag, OptimizerKind::adam})
    for (const MissingGradient missing : {MissingGradient::zero, MissingGradient::skip})
      for (const bool resumes : {false, true}) {
        SCOPED_TRACE(fmt::format("{} {} {}", name_of(kind), name_of(missing), resumes));
        OptimizerConfig config;
        config.name = kind;
        config.missing_gradient = missing;
        const auto local = make_local_communicator();
        const auto train = [&](bool with_bad) {
          GivenGradients good({{{"w", {3, -2}}, {"v", {1, 1}}}});
          good.parameters().allocate(DType::f32);
          auto optimizer = make_optimizer(config, good.parameters(), 0.5);
          const UpdateOptions options{.skip_missing = missing == MissingGradient::skip, .skip_limit = 2};
          auto runner = std::make_unique<UpdateRunner>(good, cpu_kernels(), *local, options);
          int64_t update = 0;
          double lr = 0.5;
          const auto run = [&](const GivenGradients::Gradients& gradients) {
            good.set(gradients);
            return runner->run(
                update++, 1, [&](int64_t) { return micro_batch_of(good, {}, 1); }, *optimizer, lr);
          };
          run({{"w", {3, -2}}, {"v", {1, 1}}});
          lr = 0.25;
          if (with_bad)
            for (int64_t i = 1; i <= 2; ++i) {
              const UpdateResult result = run({{"w", {NAN, 1}}});
              EXPECT_TRUE(result.skipped);
              EXPECT_EQ(result.in_a_row, i);
              lr /= 8;
              if (!resumes) continue;
              StateDict state;
              runner->save(state);
              optimizer->save(good.parameters(), state);
              optimizer = make_optimizer(config, good.parameters(), 0.5);
              optimizer->load(good.parameters(), state);
              runner = std::make_unique<UpdateRunner>(good, cpu_kernels(), *local, options);
              runner->load(state);
            }
          lr = 0.125;
          EXPECT_FALSE(run({{"w", {5, -2}}, {"v", {2, 1}}}).skipped);
          run({{"v", {2, -1}}});
          run({{"w", {5, -2}}, {"v", {2, 1}}});
          std::vector<float> values;
          for (const auto& p : good.parameters().all())
            values.insert(values.end(), p->value.as<float>(), p->value.as<float>() + p->value.elements());
          return values;
        };
        EXPECT_EQ(train(true), train(false));
      }
}

TEST(Update, HalfPrecisionGivesUpBelowTheSmallestScale) {
  GivenGradients model({{{"w", {std::numeric_limits<float>::infinity()}}}});
  model.parameters().allocate(DType::f32);
  const auto local = make_local_communicator();
  const auto optimizer = make_optimizer({}, model.parameters(), 0.5);
  UpdateRunner runner(model, cpu_kernels(), *local,
                      {.dtype = DType::f16, .loss_scaling = {.initial = 4.0, .minimum = 2.0}});
  const auto fetch = [&](int64_t) { return micro_batch_of(model, {}, 1); };
  EXPECT_TRUE(runner.run(0, 1, fetch, *optimizer, 0.5).skipped);
  EXPECT_THAT([&] { runner.run(1, 1, fetch, *optimizer, 0.5); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("the gradient of update 2 overflows fp16")));
}

TEST(Update, BatchesOfPaddingAreAnError) {
  GivenGradients model({{{"w", {1}}}});
  expect_error(model, 0, "update 1 has no targets");
}

// --- a small model with everything random switched on ---

constexpr int64_t kVocabulary = 70, kMicroBatches = 4;

ModelConfig noisy_config() {
  ModelConfig c;
  c.layers = 2;
  c.embed_dim = 32;
  c.ffn_dim = 48;
  c.heads = 4;
  c.dropout = c.attention_dropout = c.activation_dropout = 0.1;
  c.prenorm = true;
  c.adaptive = {.cutoffs = {20, 40},
                .factor = 2.0,
                .dropout = 0.1,
                .input = true,
                .softmax = true,
                .tie_weights = true,
                .tie_projections = true};
  return c;
}

std::unique_ptr<LanguageModel> noisy_model(const ModelConfig& config) {
  auto model = make_language_model(config, kVocabulary, 512);
  model->parameters().allocate(DType::f32);
  model->parameters().initialize(5);
  NoiseConfig noise;
  noise.pq = 0.2;
  EXPECT_FALSE(apply_noise(model->weights(), make_run_plan(*model, noise, nullptr)).empty());
  return model;
}

Tokens random_tokens(uint32_t update, int64_t i, int64_t rows, int64_t cols) {
  const RandomStream stream(
      {.seed = 3, .purpose = Purpose::test, .id = static_cast<uint64_t>(i), .update = update, .micro_batch = 0});
  Tokens tokens{rows, cols, {}, {}};
  for (int64_t k = 0; k <= rows * cols; ++k)
    tokens.source.push_back(kEosId + static_cast<int32_t>(stream.uniform(static_cast<uint64_t>(k)) *
                                                          static_cast<double>(kVocabulary - kEosId)));
  tokens.target.assign(tokens.source.begin() + 1, tokens.source.end());
  tokens.source.pop_back();
  return tokens;
}

struct Training {
  std::vector<double> losses, norms;
  std::unique_ptr<LanguageModel> model;
};

/// A device whose sums are done as late as allowed. What is being summed must be complete and left alone: it is
/// compared with its state at the start, and is garbage until then.
class LateSums final : public DeviceCommunicator {
 public:
  explicit LateSums(Communicator& ranks) : ranks_(ranks) {}
  const char* name() const override { return "late"; }
  void start_all_reduce_sum(const Tensor& x) override {
    const std::span<float> values = x.span<float>();
    started_.push_back({values, {values.begin(), values.end()}});
    std::fill(values.begin(), values.end(), kGarbage);
  }
  void start_broadcast(const Tensor&) override { FAIL() << "not used by an update"; }
  void join() override {
    for (Started& sum : started_) {
      EXPECT_TRUE(std::all_of(sum.values.begin(), sum.values.end(), [](float v) { return v == kGarbage; }))
          << "a gradient changed after its sum had started";
      std::copy(sum.at_start.begin(), sum.at_start.end(), sum.values.begin());
      ranks_.all_reduce_sum(sum.values);
    }
    sums_ += started_.size();
    started_.clear();
    ++joins_;
  }
  size_t sums() const { return sums_; }
  size_t joins() const { return joins_; }

 private:
  static constexpr float kGarbage = -1.25e30f;
  struct Started {
    std::span<float> values;
    std::vector<float> at_start;
  };
  Communicator& ranks_;
  std::vector<Started> started_;
  size_t sums_ = 0, joins_ = 0;
};

/// Three updates.
Training train(Communicator& ranks, uint64_t seed, double lr, bool overlap = false,
               DeviceCommunicator* device = nullptr) {
  Training run;
  run.model = noisy_model(noisy_config());
  const auto optimizer = make_optimizer({}, run.model->parameters(), lr);
  UpdateRunner runner(*run.model, cpu_kernels(), ranks,
                      {.seed = seed, .clip_norm = 0.5, .bucket_bytes = 4096, .overlap = overlap, .device = device});
  Tokens micro;
  for (int64_t u = 0; u < 3; ++u) {
    const auto fetch = [&](int64_t i) {
      micro = random_tokens(static_cast<uint32_t>(u), i, 2 + i, 9);
      return micro.micro_batch(*run.model);
    };
    const UpdateResult result = runner.run(u, kMicroBatches, fetch, *optimizer, lr);
    run.losses.push_back(result.loss);
    run.norms.push_back(result.grad_norm);
  }
  return run;
}

/// How gradients are summed over ranks: overlapped with the backward or after it, by the communicator or by a device's.
class UpdateRanks : public testing::TestWithParam<std::tuple<bool, bool>> {};

TEST_P(UpdateRanks, AnyNumberOfRanksTrainsTheSame) {
  const auto [overlap, on_device] = GetParam();
  const auto local = make_local_communicator();
  LateSums device(comm());
  const Training together = train(comm(), 1, 0.1, overlap, on_device ? &device : nullptr);
  const Training alone = train(*local, 1, 0.1);
  if (on_device && comm().size() > 1) {
    EXPECT_EQ(device.joins(), 3U);
    EXPECT_GT(device.sums(), 3 * 4U) << "several buckets per update";
  }
  for (size_t u = 0; u < alone.losses.size(); ++u) {
    EXPECT_TRUE(close(together.losses[u], alone.losses[u], kSummationTolerance)) << "update " << u;
    EXPECT_TRUE(close(together.norms[u], alone.norms[u], kTrajectoryTolerance)) << "update " << u;
  }
  for (const auto& p : alone.model->parameters().all())
    EXPECT_TRUE(close(to_doubles(together.model->parameters().find(p->name)->value), to_doubles(p->value),
                      kTrajectoryTolerance, kZeroGradientTolerance))
        << p->name;
  // Ranks never exchange parameters again, so they must hold the same bits.
  const Tensor& values = together.model->parameters().values();
  const std::string mine(static_cast<const char*>(values.data), values.bytes());
  EXPECT_TRUE(comm().broadcast_text(mine) == mine) << "rank " << comm().rank() << " differs from rank 0";
  // Random draws matter: another seed must be visible above the tolerance.
  EXPECT_FALSE(close(train(*local, 2, 0.1).losses[0], alone.losses[0], kSummationTolerance));
}
INSTANTIATE_TEST_SUITE_P(OverlapAndDevice, UpdateRanks, testing::Combine(testing::Bool(), testing::Bool()));

TEST(Parameter, KnowsTheStepThatCompletesItsGradient) {
  const auto model = noisy_model(noisy_config());
  Arena arena;
  Tape tape(cpu_kernels(), arena, DType::f32, {.training = true, .recording = true});
  const Tokens tokens = random_tokens(0, 0, 2, 9);
  model->parameters().begin_gradients();
  model->losses(tape, {tokens.rows, tokens.cols, tokens.source, tokens.target});
  std::map<std::string, std::vector<double>> complete;
  tape.backward([&](size_t index) {
    for (const auto& p : model->parameters().all())
      if (p->used_in(tape) && p->first_step() == index) complete[p->name] = to_doubles(p->slot.grad);
  });
  EXPECT_GT(complete.size(), model->parameters().all().size() / 2);
  for (const auto& [name, grad] : complete)
    EXPECT_EQ(grad, to_doubles(model->parameters().find(name)->slot.grad)) << name;
}

TEST(Update, NoiseNeverReachesTheMasterWeights) {
  const auto initial = noisy_model(noisy_config());
  const Training run = train(comm(), 1, 0.0);
  for (const auto& p : initial->parameters().all())
    EXPECT_EQ(to_doubles(run.model->parameters().find(p->name)->value), to_doubles(p->value)) << p->name;
  EXPECT_GT(run.norms.back(), 0.0);
}

// --- memory ---

std::vector<const void*> logit_addresses;

void recorded_cross_entropy(const Tensor& losses, const Tensor& logits, const int32_t* targets, const int32_t* rows,
                            bool write_grad, const double* grad_scale) {
  logit_addresses.push_back(logits.data);
  cpu_kernels().cross_entropy(losses, logits, targets, rows, write_grad, grad_scale);
}

void expect_addresses_to_be_reused(DType dtype) {
  ModelConfig config = noisy_config();
  config.embed_dim = 64;
  config.ffn_dim = 256;
  const auto model = noisy_model(config);
  const auto optimizer = make_optimizer({}, model->parameters(), 0.1);
  Kernels kernels = cpu_kernels();
  kernels.cross_entropy = recorded_cross_entropy;
  const auto local = make_local_communicator();
  UpdateRunner runner(*model, kernels, *local, {.dtype = dtype});
  const Tokens tokens = random_tokens(0, 0, 8, 160);
  const auto run = [&](int64_t u) {
    logit_addresses.clear();
    runner.run(
        u, 2, [&](int64_t) { return tokens.micro_batch(*model); }, *optimizer, 0.1);
    return logit_addresses;
  };
  run(0);
  if (dtype == DType::f32) {
    EXPECT_GT(runner.arena().peak(), size_t{20} << 20) << "too small to need a second block";
  }
  const int64_t allocations = runner.arena().system_allocations();
  const auto second = run(1), third = run(2);
  EXPECT_EQ(runner.arena().system_allocations(), allocations);
  EXPECT_EQ(third, second);
  ASSERT_EQ(second.size() % 2, 0U);
  EXPECT_TRUE(std::equal(second.begin(), second.begin() + static_cast<int64_t>(second.size() / 2),
                         second.begin() + static_cast<int64_t>(second.size() / 2)))
      << "both micro-batches of an update use the same addresses";
}

TEST(UpdateMemory, LaterUpdatesReuseTheFirstOnesAddresses) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    SCOPED_TRACE(name_of(dtype));
    expect_addresses_to_be_reused(dtype);
  }
}

}  // namespace
}  // namespace qn::test
