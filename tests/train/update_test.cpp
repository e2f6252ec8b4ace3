// One update: sums, errors, what is skipped.
#include <cmath>
#include <limits>

#include "given_gradients.h"
#include "support/test_comm.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

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
  for (const OptimizerKind kind : all_values<OptimizerKind>())
    for (const MissingGradient missing : {MissingGradient::zero, MissingGradient::skip})
      for (const bool resumes : {false, true}) {
        SCOPED_TRACE(fmt::format("{} {} {}", name_of(kind), name_of(missing), resumes));
        OptimizerConfig config;
        config.become(kind);
        config.dampening = 0.25;
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

}  // namespace
}  // namespace qn::test
