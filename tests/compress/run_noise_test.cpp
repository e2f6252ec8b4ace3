// Noise that imitates product quantization: what passes compute, codebooks and their refreshes, rates and windows.
#include "compress/run_noise.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "compress/explain.h"
#include "compress/representation.h"
#include "compress/run_plan.h"
#include "ops/dry_kernels.h"
#include "small_net.h"
#include "support/capture.h"
#include "support/test_comm.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

const PassOptions kTraining{.training = true, .recording = true, .seed = 5, .update = 3};

NoiseConfig noise_of(BlockNoise form, double rate, NoiseUnit unit = NoiseUnit::block) {
  NoiseConfig c;
  c.pq = rate;
  c.form = form;
  c.unit = unit;
  c.block_size = 4;
  c.n_centroids = 16;
  return c;
}

/// A module with noise, and what drives it.
struct Noisy {
  explicit Noisy(const NoiseConfig& config, RunNoiseOptions options = {}, RowImportance importance = {})
      : plan(make_run_plan(net, config, nullptr)) {
    apply_noise(net.weights(), plan);
    noise.emplace(net, comm(), plan, options, std::move(importance));
  }
  bool begin(int64_t update, const std::function<bool()>& keep_going = {}) {
    noise->set_rates(update);
    const bool ready = !noise->refresh_due(update) || noise->refresh(update, keep_going);
    if (ready)
      for (const auto& w : net.weights().all()) w->representation().begin_update(cpu_kernels(), update);
    return ready;
  }
  std::vector<float> value(const std::string& name, const PassOptions& pass = kTraining) {
    tape.restart(pass);
    const Tensor v = net.weight(name).value(tape).value;
    return {v.span<float>().begin(), v.span<float>().end()};
  }
  std::vector<float> master(const std::string& name) {
    const auto v = net.weight(name).dense()->value.span<float>();
    return {v.begin(), v.end()};
  }
  const PqTable& codebook(const std::string& name) {
    return *dynamic_cast<ReplacementNoise&>(net.weight(name).representation()).codebook();
  }

  SmallNet net;
  QuantizationPlan plan;
  std::optional<RunNoise> noise;
  Arena arena;
  Tape tape{cpu_kernels(), arena, DType::f32, {}};
};

std::vector<float> decoded(const PqTable& table) {
  std::vector<float> values(static_cast<size_t>(table.rows * table.cols));
  decode(table, values.data());
  return values;
}

/// Of blocks of four columns of fc1, [kHidden, kWidth].
constexpr int64_t kBlock = 4;

TEST(RunNoise, ExactNoiseOfEverythingIsTheDecodedCodes) {
  for (const NoiseUnit unit : {NoiseUnit::block, NoiseUnit::cluster}) {
    Noisy n(noise_of(BlockNoise::exact, 1.0, unit));
    ASSERT_TRUE(n.begin(0));
    for (const char* name : {"embed", "fc1", "fc2"}) {
      EXPECT_EQ(n.value(name), decoded(n.codebook(name))) << name;
      EXPECT_EQ(n.value(name, {}), n.master(name)) << "noise in evaluation";
    }
    // It is what the quantizer itself makes of the weight: codes are nearest centroids.
    const PqTable& table = n.codebook("fc1");
    EXPECT_EQ(encode(n.master("fc1").data(), table.rows, table.cols, kBlock, table.centroids).codes.size(),
              table.codes.size());
  }
}

TEST(RunNoise, ExactNoiseInBf16IsTheDecodedCodesRounded) {
  Noisy n(noise_of(BlockNoise::exact, 1.0));
  ASSERT_TRUE(n.begin(0));
  Tape tape(cpu_kernels(), n.arena, DType::bf16, kTraining);
  const Tensor value = n.net.weight("fc1").value(tape).value;
  ASSERT_EQ(value.dtype, DType::bf16);
  const std::vector<float> expected = decoded(n.codebook("fc1"));
  for (size_t i = 0; i < expected.size(); ++i)
    ASSERT_EQ(static_cast<float>(value.span<bfloat16>()[i]), static_cast<float>(bfloat16(expected[i])));
}

TEST(RunNoise, PartOfTheBlocksIsReplacedAndTheGradientIsTheMasters) {
  for (const BlockNoise form : {BlockNoise::zero, BlockNoise::mean, BlockNoise::exact})
    for (const NoiseUnit unit : {NoiseUnit::block, NoiseUnit::cluster}) {
      Noisy n(noise_of(form, 0.4, unit));
      ASSERT_TRUE(n.begin(0));
      const std::vector<float> w = n.master("fc1"), noisy = n.value("fc1");
      std::vector<double> mean(kBlock, 0.0);
      for (size_t i = 0; i < w.size(); ++i) mean[i % kBlock] += w[i] * static_cast<double>(kBlock) / std::ssize(w);
      const bool codes = form == BlockNoise::exact || unit == NoiseUnit::cluster;
      const std::vector<float> exact = codes ? decoded(n.codebook("fc1")) : std::vector<float>(w.size());
      const double scale = form == BlockNoise::zero ? 1.0 / 0.6 : 1.0;
      std::map<uint16_t, std::set<bool>> fates;
      int64_t replaced = 0;
      for (size_t block = 0; block < w.size() / kBlock; ++block) {
        const bool clean = std::abs(noisy[block * kBlock] - scale * w[block * kBlock]) < 1e-6;
        replaced += clean ? 0 : 1;
        if (codes) {
          const PqTable& table = n.codebook("fc1");
          const size_t row = block / (SmallNet::kWidth / kBlock), column = block % (SmallNet::kWidth / kBlock);
          fates[table.codes[column * static_cast<size_t>(table.rows) + row]].insert(clean);
        }
        for (size_t i = block * kBlock; i < (block + 1) * kBlock; ++i) {
          const double other = form == BlockNoise::zero   ? 0.0
                               : form == BlockNoise::mean ? mean[i % kBlock]
                                                          : static_cast<double>(exact[i]);
          EXPECT_NEAR(noisy[i], clean ? scale * w[i] : other, 1e-6) << name_of(form) << ' ' << i;
        }
      }
      EXPECT_GT(replaced, 0);
      EXPECT_LT(replaced, static_cast<int64_t>(w.size()) / kBlock);
      for (const auto& [code, fate] : fates)
        EXPECT_TRUE(unit == NoiseUnit::block || fate.size() == 1u) << "cluster " << code;
      n.tape.restart(kTraining);
      const Var value = n.net.weight("fc1").value(n.tape);
      EXPECT_EQ(value.slot, n.net.weight("fc1").dense()->var(n.tape).slot);
      EXPECT_NE(n.value("fc1", {.training = true, .seed = 5, .update = 3, .micro_batch = 1}), noisy);
      EXPECT_EQ(n.value("fc1"), noisy) << "the same pass draws the same";
    }
}

TEST(RunNoise, RanksMakeTheSameCodebooks) {
  Noisy n(noise_of(BlockNoise::exact, 0.2));
  ASSERT_TRUE(n.begin(0));
  const auto alone = make_local_communicator();
  SmallNet net;
  apply_noise(net.weights(), n.plan);
  RunNoise noise(net, *alone, n.plan, {});
  noise.set_rates(0);
  ASSERT_TRUE(noise.refresh(0));
  for (const char* name : {"embed", "fc1", "fc2"}) {
    const auto& other = *dynamic_cast<ReplacementNoise&>(net.weight(name).representation()).codebook();
    EXPECT_EQ(n.codebook(name).codes, other.codes);
    EXPECT_EQ(n.codebook(name).centroids, other.centroids);
  }
}

void move_weights(SmallNet& net, int64_t update) {
  for (const auto& w : net.weights().all())
    for (float& x : w->dense()->value.span<float>()) x += 0.01f * std::sin(static_cast<float>(update) + 37.0f * x);
}

/// Codebooks are refreshed when due, codes in between stay; a run that is stopped after any k-means iteration and goes
/// on from what it saved has the same.
TEST(RunNoise, RefreshesGoOnWhereTheyWereStopped) {
  const RunNoiseOptions options{.codebook_updates = 3, .first_iterations = 5, .refresh_iterations = 2};
  const NoiseConfig config = noise_of(BlockNoise::exact, 0.2);
  Noisy straight(config, options);
  std::vector<std::vector<uint16_t>> codes;
  for (int64_t update = 0; update < 8; ++update) {
    ASSERT_TRUE(straight.begin(update));
    codes.push_back(straight.codebook("fc1").codes);
    move_weights(straight.net, update);
  }
  for (const int64_t update : {1, 2, 4, 5, 7}) EXPECT_EQ(codes[update], codes[update - 1]) << update;
  for (const int64_t update : {3, 6}) EXPECT_NE(codes[update], codes[update - 1]) << update;
  for (const int stop : {1, 2, 4, 5, 6}) {
    auto n = std::make_unique<Noisy>(config, options);
    int asked = 0;
    for (int64_t update = 0; update < 8; ++update) {
      if (!n->begin(update, [&] { return ++asked != stop; })) {
        StateDict state;
        save_module(n->net, state);
        n->noise->save(state);
        n = std::make_unique<Noisy>(config, options);
        load_module(n->net, state);
        n->noise->load(state);
        ASSERT_TRUE(n->begin(update, [&] { return true; })) << "stopped after question " << stop;
      }
      EXPECT_EQ(n->codebook("fc1").codes, codes[static_cast<size_t>(update)]) << stop << ' ' << update;
      move_weights(n->net, update);
    }
    EXPECT_EQ(n->codebook("embed").centroids, straight.codebook("embed").centroids);
    EXPECT_GE(asked, stop);
  }
}

TEST(RunNoise, CodebooksOfOtherSizesAreMadeAnew) {
  Noisy n(noise_of(BlockNoise::exact, 0.2));
  ASSERT_TRUE(n.begin(0));
  StateDict state;
  n.noise->save(state);
  EXPECT_EQ(state.tensor("noise/codes/net.fc1.weight").dtype, DType::u8);
  NoiseConfig other = noise_of(BlockNoise::exact, 0.2);
  other.n_centroids = 8;
  Noisy m(other);
  m.noise->load(state);
  m.noise->set_rates(1);
  EXPECT_TRUE(m.noise->refresh_due(1));
  ASSERT_TRUE(m.begin(1));
  EXPECT_EQ(m.codebook("fc1").n_centroids, 8);
  Noisy same(noise_of(BlockNoise::exact, 0.2));
  same.noise->load(state);
  same.noise->set_rates(1);
  EXPECT_FALSE(same.noise->refresh_due(1));
}

TEST(RunNoise, ImportantRowsAreMetMoreExactly) {
  const auto error = [](const RowImportance& importance) {
    Noisy n(noise_of(BlockNoise::exact, 1.0), {}, importance);
    EXPECT_TRUE(n.begin(0));
    const std::vector<float> w = n.master("embed"), noisy = n.value("embed");
    double sum = 0.0;
    for (size_t i = 0; i < 3 * SmallNet::kWidth; ++i) sum += std::pow(w[i] - noisy[i], 2);
    return sum;
  };
  const double important = error([](const Weight& w) {
    std::vector<float> rows(static_cast<size_t>(w.rows()), 0.01f);
    std::fill_n(rows.begin(), 3, 7.0f);
    return rows;
  });
  EXPECT_LT(important, 0.5 * error({}));
}

TEST(NoiseSchedule, IsAPureFunctionOfTheUpdate) {
  const NoiseSchedule window{.start = 0.7, .end = 0.9};
  EXPECT_EQ(window.share(6, 10), 0.0);
  EXPECT_EQ(window.share(7, 10), 1.0);
  EXPECT_EQ(window.share(8, 10), 1.0);
  EXPECT_EQ(window.share(9, 10), 0.0);
  EXPECT_EQ(window.share_at_the_end(), 0.0);
  EXPECT_EQ(NoiseSchedule().share(123, 0), 1.0);
  const NoiseSchedule rise{.start = 0.5, .end = 1.0, .rate = RateSchedule::linear};
  EXPECT_EQ(rise.share(499, 1000), 0.0);
  EXPECT_EQ(rise.share(500, 1000), 1.0 / 32.0);
  EXPECT_EQ(rise.share(999, 1000), 1.0);
  EXPECT_EQ(rise.share_at_the_end(), 1.0);
  std::set<double> steps;
  for (int64_t update = 500; update < 1000; ++update) {
    EXPECT_GE(rise.share(update, 1000), rise.share(update - 1, 1000));
    EXPECT_NEAR(rise.share(update, 1000), static_cast<double>(update - 499) / 500.0, 1.0 / 32.0);
    steps.insert(rise.share(update, 1000));
  }
  EXPECT_EQ(steps.size(), 32u);
}

TEST(RunNoise, WindowsAndRisingRates) {
  NoiseConfig config = noise_of(BlockNoise::exact, 0.4);
  config.start = 0.5;
  config.rate_schedule = RateSchedule::linear;
  Noisy n(config, {.total_updates = 64});
  ASSERT_TRUE(n.begin(31));
  EXPECT_EQ(n.value("fc1"), n.master("fc1"));
  StateDict state;
  n.noise->save(state);
  EXPECT_FALSE(state.tensors.contains("noise/codes/net.fc1.weight")) << "no codebook before the window";
  ASSERT_TRUE(n.begin(32));
  const auto rate = [&] { return dynamic_cast<NoisyWeight&>(n.net.weight("fc1").representation()).rate(); };
  EXPECT_DOUBLE_EQ(rate(), 0.4 / 32.0);
  ASSERT_TRUE(n.begin(63));
  EXPECT_DOUBLE_EQ(rate(), 0.4);
  EXPECT_NE(n.value("fc1"), n.master("fc1"));
  Noisy later(config, {.after_training = true});
  ASSERT_TRUE(later.begin(0));
  EXPECT_NE(later.value("fc1"), later.master("fc1")) << "quantize goes on as training ended";
  EXPECT_THROW(check_noise_schedule(config, 0), UsageError);
  EXPECT_NO_THROW(check_noise_schedule(config, 10));
}

/// A graph of a pass (train/graphed_passes.h) is used again while its signature stays: a refresh may not move memory
/// that it reads, and another rate must give another signature.
TEST(RunNoise, RecordedPassesSeeNewCodebooksAndNewRates) {
  for (const BlockNoise form : {BlockNoise::mean, BlockNoise::exact}) {
    NoiseConfig config = noise_of(form, 0.4);
    config.rate_schedule = RateSchedule::linear;  // two updates of 64 to a step
    Noisy n(config, {.codebook_updates = 1, .total_updates = 64});
    DryRun dry(cpu_kernels());
    Tape tape(dry.kernels(), n.arena, DType::f32, {});
    const auto signature = [&](int64_t update) {
      EXPECT_TRUE(n.begin(update));
      n.arena.reset();
      tape.restart(kTraining);
      dry.begin();
      n.net.weight("fc1").value(tape);
      move_weights(n.net, update);
      return dry.signature();
    };
    const uint64_t first = signature(0), same = signature(1), other = signature(2);
    EXPECT_EQ(first, same) << name_of(form);
    EXPECT_NE(first, other) << name_of(form);
  }
}

TEST(RunNoise, ScalarNoiseHasWindowsToo) {
  NoiseConfig config;
  config.scalar = 0.5;
  config.bits = 2;
  config.groups = {"ffn"};
  config.end = 0.5;
  Noisy n(config, {.total_updates = 10});
  ASSERT_TRUE(n.begin(4));
  EXPECT_NE(n.value("fc1"), n.master("fc1"));
  ASSERT_TRUE(n.begin(5));
  EXPECT_EQ(n.value("fc1"), n.master("fc1"));
  EXPECT_NE(n.value("fc1", {}), n.master("fc1")) << "evaluation is of the quantized weight";
}

TEST(NoisePlan, TakesBlocksAndCentroidsFromTheQuantizationToCome) {
  const SmallNet net;
  NoiseConfig noise = noise_of(BlockNoise::exact, 0.1);
  noise.block_size = {};
  noise.n_centroids = {};
  IpqConfig ipq;
  ipq.stages = {R"(net\.fc)", R"(net\.embed)"};
  const auto of = [&](const char* name, const IpqConfig* now) {
    const WeightNoise n = make_run_plan(net, noise, now, ipq).find(name)->noise;
    return fmt::format("{} {} {}", n.form, n.block,
                       n.options.contains("n_centroids") ? n.options.at("n_centroids") : "");
  };
  const QuantizationPlan plan = make_run_plan(net, {}, &ipq);
  const LogCapture log;
  for (const WeightPlan& w : plan.weights) {
    const KMeansShape shape = w.quantizer->kmeans().value();
    const std::string expected = fmt::format("exact_blocks {} {}", shape.block_size, shape.n_centroids);
    EXPECT_EQ(of(w.name.c_str(), nullptr), expected);
    EXPECT_EQ(of(w.name.c_str(), &ipq), expected);
  }
  EXPECT_THAT(log.text(), testing::Not(HasSubstr("quant_noise.block_size")));
  noise.block_size = 2;
  EXPECT_EQ(of("net.fc1.weight", nullptr).substr(0, 14), "exact_blocks 2");
  EXPECT_THAT(log.text(), AllOf(HasSubstr("block_size 2"), HasSubstr("for 3 weights")));
  ipq.stages = {"nothing"};
  noise.block_size = {};
  EXPECT_EQ(of("net.fc1.weight", nullptr), "exact_blocks 8 16");
  EXPECT_THAT(log.text(), HasSubstr("the section ipq"));
}

TEST(NoisePlan, RatesOfGroups) {
  const SmallNet net;
  NoiseConfig noise = noise_of(BlockNoise::mean, 0.1);
  noise.rates = {"ffn=0.3"};
  const auto rate = [&](const char* name) { return make_run_plan(net, noise, nullptr).find(name)->noise.rate; };
  EXPECT_EQ(rate("net.fc1.weight"), 0.3);
  EXPECT_EQ(rate("net.embed.weight"), 0.1);
  noise.pq = 0.0;
  EXPECT_EQ(rate("net.fc1.weight"), 0.3);
  EXPECT_TRUE(make_run_plan(net, noise, nullptr).find("net.embed.weight")->noise.form.empty());
  noise.rates = {"ffn=0"};
  EXPECT_TRUE(make_run_plan(net, noise, nullptr).find("net.fc1.weight")->noise.form.empty());
  const auto problem = [](const char* text) {
    return error_of([&] { read_config<NoiseConfig>(config_tree_from_text(text, "x.yaml")); });
  };
  EXPECT_THAT(problem("rates: [ffn]"), HasSubstr("GROUP=RATE"));
  EXPECT_THAT(problem("rates: [fnn=0.1]"), AllOf(HasSubstr("'fnn'"), HasSubstr("embed_proj")));
  EXPECT_THAT(problem("rates: [ffn=1]"), HasSubstr("[0, 1)"));
  EXPECT_EQ(problem("{form: exact, rates: [ffn=1]}"), "");
  EXPECT_THAT(problem("rates: [ffn=0.1, ffn=0.2]"), HasSubstr("twice"));
  EXPECT_THAT(problem("pq: 1.0"), HasSubstr("[0, 1)"));
  EXPECT_EQ(problem("{form: mean, pq: 1.0}"), "");
  EXPECT_THAT(problem("{form: exact, scalar: 0.5}"), HasSubstr("leave it out"));
  EXPECT_THAT(problem("{unit: cluster, scalar: 0.5}"), HasSubstr("leave it out"));
  EXPECT_THAT(problem("{start: 0.5, end: 0.5}"), HasSubstr("above start"));
  EXPECT_THAT(problem("n_centroids: 1"), HasSubstr("2 to 65536"));
}

TEST(NoisePlan, SurvivesAsText) {
  const SmallNet net;
  NoiseConfig noise = noise_of(BlockNoise::exact, 0.1, NoiseUnit::cluster);
  noise.start = 0.7;
  noise.rate_schedule = RateSchedule::linear;
  const QuantizationPlan plan = make_run_plan(net, noise, nullptr);
  const QuantizationPlan back = plan_from_text(plan_to_text(plan), "there");
  for (const WeightPlan& w : plan.weights) EXPECT_EQ(back.find(w.name)->noise, w.noise);
  EXPECT_THAT(explain(plan, net), HasSubstr("exact_clusters p=0.1 d=4 n_centroids=16 window=0.7..1 linear"));
  EXPECT_THAT(explain_json(plan, net), HasSubstr(R"("window":[0.7,1.0],"schedule":"linear")"));
  // What there was before is written as before.
  NoiseConfig plain;
  plain.pq = 0.1;
  EXPECT_THAT(plan_to_text(make_run_plan(net, plain, nullptr)),
              HasSubstr(R"("noises":[{"form":"zero_blocks","rate":0.1,"block":8}])"));
}

}  // namespace
}  // namespace qn::test
