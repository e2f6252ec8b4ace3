// Updates of a small model with everything random switched on: the same on any number of ranks, and without memory from
// the system.
#include <cmath>
#include <set>

#include "compress/run_plan.h"
#include "core/special_tokens.h"
#include "given_gradients.h"
#include "support/test_comm.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

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

void recorded_cross_entropy(const Tensor& losses, const Tensor& logits, int64_t classes, const int32_t* targets,
                            const int32_t* rows, double smoothing, bool write_grad, const double* grad_scale) {
  logit_addresses.push_back(logits.data);
  cpu_kernels().cross_entropy(losses, logits, classes, targets, rows, smoothing, write_grad, grad_scale);
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
    EXPECT_GT(runner.arena().peak(), size_t{17} << 20)
        << "too small for more than a block of memory that is taken at once";
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
