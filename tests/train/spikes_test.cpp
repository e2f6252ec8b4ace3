// Losses and gradients that stand out, and runs that go back before them.
#include "train/spikes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "train/shared_dir.h"

namespace qn::test {
namespace {

using testing::HasSubstr;

double wobble(int update) { return std::sin(update * 1.7) * std::cos(update * 0.3); }

TEST(SpikeDetector, TellsWhereASpikeBeginsAndWhatIsUsual) {
  SpikeDetector detector(12.0);
  for (int u = 0; u < 300; ++u) {
    const bool loss = u == 150, norm = u == 200 || u == 201;
    const auto found = detector.add(5.0 - 0.002 * u + 0.05 * wobble(u) + (loss ? 3.0 : 0.0),
                                    std::exp(0.2 * wobble(u)) * (norm ? 90.0 : 1.0));
    ASSERT_EQ(found.has_value(), u == 150 || u == 200) << u;
    if (!found) continue;
    EXPECT_EQ(found->what, u == 150 ? "loss" : "gradient norm");
    EXPECT_NEAR(found->usual, u == 150 ? 4.8 : 1.0, 0.2);
    EXPECT_THAT(text_of(*found), HasSubstr(fmt::format("the {} is ", found->what)));
  }
}

TEST(SpikeDetector, SaysNothingOfWarmupFallsNoiseAndConstants) {
  SpikeDetector falling(12.0), constant(12.0), early(12.0), off(0.0);
  for (int u = 0; u < 400; ++u) {
    EXPECT_FALSE(
        falling.add(4.0 + 12.0 * std::exp(-u / 30.0), std::exp(-u / 50.0) + 0.1 * std::abs(wobble(u))).has_value());
    EXPECT_FALSE(
        constant.add(3.0 + (u == 200 ? 0.1 : 0.0), 1.0 + (u == 200 ? 0.5 : 0.0)).has_value());  // below 10 %, twice
    EXPECT_FALSE(off.add(u == 300 ? 1e6 : 1.0, 1.0).has_value());
  }
  for (size_t u = 0; u < SpikeDetector::kLeast; ++u) EXPECT_FALSE(early.add(u % 7 == 0 ? 1e3 : 1.0, 1.0).has_value());
  EXPECT_FALSE(constant.add(NAN, 1.0).has_value());
  EXPECT_FALSE(constant.add(3.0, INFINITY).has_value());
  EXPECT_FALSE(constant.add(3.0, 0.0).has_value());
}

TEST(SpikeDetector, GoesOnAfterAResumeAsBefore) {
  const auto value = [](int u) { return 5.0 + 0.1 * wobble(u) + (u == 80 || u == 81 ? 9.0 : 0.0); };
  for (const int stop : {10, 80, 81, 140}) {
    SpikeDetector whole(12.0), first(12.0), second(12.0);
    for (int u = 0; u < 150; ++u) {
      if (u == stop) {
        StateDict state;
        first.save(state);
        second.load(state);
      }
      EXPECT_EQ(whole.add(value(u), 1.0).has_value(), (u < stop ? first : second).add(value(u), 1.0).has_value()) << u;
    }
  }
  SpikeDetector cleared(12.0);
  for (int u = 0; u < 100; ++u) cleared.add(1.0, 1.0);
  cleared.clear();
  EXPECT_FALSE(cleared.add(100.0, 1.0).has_value());
  StateDict none;
  cleared.save(none);
  cleared.load({});
  EXPECT_FALSE(cleared.add(100.0, 1.0).has_value());
}

/// Adds to the loss of one update, as a batch of rubbish would. Kernels are plain functions, so what they know is
/// global.
struct Poison {
  int64_t calls = 0, poisoned = -1;
};
Poison poison;

void poisoned_add_sum(double* sum, const Tensor& values) {
  cpu_kernels().add_sum(sum, values);
  if (poison.calls++ == poison.poisoned) *sum += 1e4;
}

class SpikeRun : public testing::Test {
 protected:
  void SetUp() override { kernels_.add_sum = poisoned_add_sum; }
  RunConfig config(const std::string& name) const {
    RunConfig c = tiny_config(dir_.path(), name);
    c.train.max_updates = 60;
    c.train.validate_every_updates = 0;
    c.train.validate_every_epochs = 0;
    c.checkpoint.save_every_updates = 10;
    c.checkpoint.save_every_epochs = 0;
    c.train.on_spike = OnSpike::rollback;
    return c;
  }
  /// One micro-batch of rank 0 is poisoned, in the forties' updates; negative: none is.
  static void poison_once(int64_t call = 180) {
    poison = {.calls = 0, .poisoned = comm().is_root() ? call / comm().size() : -1};
  }
  std::vector<nlohmann::json> records(const std::string& run, const std::string& kind) const {
    std::vector<nlohmann::json> found;
    std::ifstream in(dir_ / run / "metrics.jsonl");
    for (std::string line; std::getline(in, line);)
      if (auto record = nlohmann::json::parse(line); record["kind"] == kind) found.push_back(std::move(record));
    return found;
  }
  Outcome train(const RunConfig& c, std::vector<float>& parameters, int stop = 0) {
    Outcome outcome;
    {
      TinyTrainer trainer(
          c, comm(), {.quantize = false, .stop_requested = stop > 0 ? stop_at(stop) : nullptr, .kernels = &kernels_});
      outcome = trainer.run();
      parameters = parameter_values(trainer.model());
    }
    comm().barrier();  // rank 0 has written all its records
    return outcome;
  }

  SharedDir dir_;
  Kernels kernels_ = cpu_kernels();
};

TEST_F(SpikeRun, GoesBackToTheCheckpointBeforeAndLeavesTheDataOut) {
  std::vector<float> rolled, warned, clean;
  poison_once();
  ASSERT_EQ(train(config("rolled"), rolled), Outcome::finished);
  const auto back = records("rolled", "rollback");
  ASSERT_EQ(back.size(), 1U);
  const int64_t from = back[0]["from"];
  EXPECT_EQ(back[0]["update"], (from - 1) / 10 * 10);
  EXPECT_THAT(back[0]["message"].get<std::string>(), HasSubstr("the loss is"));
  std::vector<int64_t> updates;
  for (const auto& record : records("rolled", "train")) updates.push_back(record["update"]);
  ASSERT_EQ(updates.size(), 60U);
  for (size_t i = 0; i < updates.size(); ++i) EXPECT_EQ(updates[i], static_cast<int64_t>(i) + 1);

  RunConfig only_warn = config("warned");
  only_warn.train.on_spike = OnSpike::warn;
  poison_once();
  ASSERT_EQ(train(only_warn, warned), Outcome::finished);
  ASSERT_EQ(records("warned", "spike").size(), 1U);
  EXPECT_EQ(records("warned", "spike")[0]["update"], from);
  EXPECT_TRUE(records("warned", "rollback").empty());
  poison_once(-100);
  ASSERT_EQ(train(config("clean"), clean), Outcome::finished);
  EXPECT_EQ(warned, clean);  // telling changes nothing
  EXPECT_NE(rolled, clean);  // other data from update 41 on
}

TEST_F(SpikeRun, EndsInTheSameBitsWhenItIsStoppedAfterwards) {
  std::vector<float> whole, resumed;
  poison_once();
  ASSERT_EQ(train(config("whole"), whole), Outcome::finished);
  const int from = records("whole", "rollback").at(0)["from"];
  for (const int stop : {from, from + 1, from + 5}) {
    const std::string name = fmt::format("stopped{}", stop);
    poison_once();
    ASSERT_EQ(train(config(name), resumed, stop), Outcome::stopped) << stop;
    ASSERT_EQ(train(config(name), resumed), Outcome::finished) << stop;
    EXPECT_EQ(resumed, whole) << stop;
  }
}

TEST_F(SpikeRun, StopsGoingBackAtItsLimit) {
  RunConfig c = config("limit");
  c.train.rollback_limit = 0;
  std::vector<float> parameters;
  poison_once();
  ASSERT_EQ(train(c, parameters), Outcome::finished);
  EXPECT_EQ(records("limit", "spike").size(), 1U);
  EXPECT_TRUE(records("limit", "rollback").empty());
}

}  // namespace
}  // namespace qn::test
