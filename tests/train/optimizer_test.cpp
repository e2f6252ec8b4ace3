// Optimizers against the trajectories of fairseq, torch and timm.
#include "train/optimizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "core/hdf5_file.h"
#include "golden_optimizer.h"
#include "support/golden.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

const std::set<OptimizerKind> kAllOptimizers = {OptimizerKind::nag, OptimizerKind::adam, OptimizerKind::sgd,
                                                OptimizerKind::rmsprop_tf};

/// The cases of a file that are trajectories of single tensors.
std::vector<std::string> trajectories(const Hdf5File& file) {
  const std::string root = file.exists("optimizers") ? "optimizers/" : "";
  std::vector<std::string> groups;
  for (const std::string& name : file.members(root.empty() ? "" : "optimizers"))
    if (const std::string group = root + name; file.has_attribute(group, "optimizer") && !file.exists(group + "/model"))
      groups.push_back(group);
  EXPECT_FALSE(groups.empty());
  return groups;
}

/// Calls check(file, group) for every trajectory there is.
template <typename F>
void for_each_trajectory(F&& check) {
  for (const char* name : {"optimizers.h5", "efficientnet.h5"}) {
    QN_GOLDEN(golden, name);
    const Hdf5File file(golden, Hdf5File::Mode::read);
    for (const std::string& group : trajectories(file)) {
      SCOPED_TRACE(group);
      check(file, group);
    }
  }
}

/// One case: some tensors, and gradients for every step.
class Trajectory {
 public:
  Trajectory(const Hdf5File& file, std::string group, MissingGradient missing_gradient)
      : file_(file), group_(std::move(group)), config_(golden_optimizer_config(file, group_)) {
    config_.missing_gradient = missing_gradient;
    lr_ = file.read<double>(group_ + "/lr");
    for (const std::string& name : file.members(group_))
      if (file.is_group(group_ + "/" + name)) store.add(name, file.shape(path(name, "param0")), {});
    store.allocate(DType::f32);
    for (const auto& p : store.all()) write(p->value, file.read<float>(path(p->name, "param0")));
    renew_optimizer();
  }

  void renew_optimizer() { optimizer = make_optimizer(config_, store, golden_initial_lr(file_, group_)); }

  void step(int64_t k) {
    store.begin_gradients();
    for (const auto& p : store.all()) {
      if (!has_gradient(p->name, k)) continue;
      write(p->slot.grad, slice(p->name, "grad", k));
      p->slot.touched = true;
    }
    store.finish_gradients();
    const StepDecision decision;
    optimizer->step(store, cpu_kernels(), lr_[static_cast<size_t>(k)], &decision);
  }

  void expect_state_after(int64_t k) const {
    StateDict state;
    optimizer->save(store, state);
    for (const auto& p : store.all()) {
      SCOPED_TRACE(p->name + " after step " + std::to_string(k));
      EXPECT_TRUE(close(p->value.span<float>(), slice(p->name, "param", k), kOptimizerTolerance));
      for (const auto& [stored, mine] :
           {std::pair{"momentum_buffer", kind() == OptimizerKind::nag ? "optimizer/velocity/" : "optimizer/momentum/"},
            {"exp_avg", "optimizer/mean/"},
            {"exp_avg_sq", "optimizer/square/"},
            {"square_avg", "optimizer/square/"}}) {
        if (!file_.exists(path(p->name, stored)) || !keeps(stored)) continue;
        EXPECT_TRUE(close(state.tensor(mine + p->name).span<float>(), slice(p->name, stored, k), kOptimizerTolerance))
            << stored;
      }
      if (file_.exists(path(p->name, "step"))) {
        EXPECT_EQ(state.integer("optimizer/steps/" + p->name),
                  file_.read<int64_t>(path(p->name, "step"))[static_cast<size_t>(k)]);
      }
    }
  }

  OptimizerKind kind() const { return config_.name; }
  /// Buffers of momentum are stored as zeros where there is none.
  bool keeps(const std::string& state) const { return state != "momentum_buffer" || config_.momentum > 0.0; }
  int64_t steps() const { return std::ssize(lr_); }
  bool has_gradient(const std::string& tensor, int64_t k) const {
    return file_.read<int64_t>(path(tensor, "has_grad"))[static_cast<size_t>(k)] != 0;
  }
  /// The first step in which the tensor has no gradient; steps() if there is none.
  int64_t first_missing(const std::string& tensor) const {
    int64_t k = 0;
    while (k < steps() && has_gradient(tensor, k)) ++k;
    return k;
  }
  /// Steps before the first in which any tensor has none.
  int64_t complete_steps() const {
    int64_t least = steps();
    for (const auto& p : store.all()) least = std::min(least, first_missing(p->name));
    return least;
  }

  ParameterStore store;
  std::unique_ptr<Optimizer> optimizer;

 private:
  std::string path(const std::string& tensor, const std::string& name) const {
    return group_ + "/" + tensor + "/" + name;
  }
  static void write(const Tensor& to, const std::vector<float>& values) {
    QN_ASSERT(to.elements() == static_cast<int64_t>(values.size()));
    std::copy(values.begin(), values.end(), to.as<float>());
  }
  /// Entry k of a dataset [steps, ...].
  std::vector<float> slice(const std::string& tensor, const std::string& name, int64_t k) const {
    const auto all = file_.read<float>(path(tensor, name));
    const auto size = static_cast<int64_t>(all.size()) / steps();
    return {all.begin() + k * size, all.begin() + (k + 1) * size};
  }

  const Hdf5File& file_;
  std::string group_;
  OptimizerConfig config_;
  std::vector<double> lr_;
};

TEST(OptimizerGolden, EveryTrajectory) {
  std::set<OptimizerKind> optimizers;
  for_each_trajectory([&](const Hdf5File& file, const std::string& group) {
    Trajectory run(file, group, MissingGradient::skip);
    optimizers.insert(run.kind());
    for (int64_t k = 0; k < run.steps(); ++k) {
      run.step(k);
      run.expect_state_after(k);
    }
  });
  EXPECT_EQ(optimizers, kAllOptimizers);
}

/// Where gradients are missing the two differ on purpose.
TEST(OptimizerGolden, OneCallForAllParametersGivesTheSame) {
  std::set<OptimizerKind> optimizers;
  for_each_trajectory([&](const Hdf5File& file, const std::string& group) {
    Trajectory each(file, group, MissingGradient::skip), flat(file, group, MissingGradient::zero);
    if (each.complete_steps() > 2) optimizers.insert(each.kind());
    for (int64_t k = 0; k < each.complete_steps(); ++k) {
      each.step(k);
      flat.step(k);
    }
    for (const auto& p : flat.store.all())
      EXPECT_TRUE(close(p->value.span<float>(), each.store.find(p->name)->value.span<float>(), 0.0)) << p->name;
  });
  EXPECT_EQ(optimizers, kAllOptimizers);
}

TEST(OptimizerGolden, MissingGradientsCountAsZeroByDefault) {
  QN_GOLDEN(golden, "optimizers.h5");
  const Hdf5File file(golden, Hdf5File::Mode::read);
  int checked = 0;
  for (const std::string& group : trajectories(file)) {
    Trajectory run(file, group, OptimizerConfig().missing_gradient);
    for (const auto& p : run.store.all()) {
      const int64_t missing = run.first_missing(p->name);
      if (run.kind() != OptimizerKind::adam || missing == run.steps()) continue;
      SCOPED_TRACE(group + " " + p->name);
      Trajectory fresh(file, group, OptimizerConfig().missing_gradient);
      for (int64_t k = 0; k <= missing; ++k) fresh.step(k);
      StateDict state;
      fresh.optimizer->save(fresh.store, state);
      EXPECT_EQ(state.integer("optimizer/steps/" + p->name), missing + 1) << "the step counter has to go on";
      ++checked;
    }
  }
  EXPECT_GT(checked, 0);
}

TEST(OptimizerGolden, SavedStateContinuesTheTrajectory) {
  for_each_trajectory([&](const Hdf5File& file, const std::string& group) {
    Trajectory run(file, group, MissingGradient::skip);
    for (int64_t k = 0; k < run.steps(); ++k) {
      if (k == run.steps() / 2) {
        StateDict state;
        run.optimizer->save(run.store, state);
        run.renew_optimizer();
        run.optimizer->load(run.store, state);
      }
      run.step(k);
    }
    run.expect_state_after(run.steps() - 1);
  });
}

/// Some steps on two matrices with a vector between them.
std::vector<std::vector<float>> values_after_steps(const OptimizerConfig& config) {
  ParameterStore store;
  store.add("a", {5, 3}, {});
  store.add("b", {7}, {});
  store.add("c", {2, 3, 4}, {});
  store.allocate(DType::f32);
  const auto fill = [](const Tensor& x, int seed) {
    for (int64_t i = 0; i < x.elements(); ++i) x.as<float>()[i] = 0.1f * static_cast<float>((i * 7 + seed) % 11 - 5);
  };
  for (const auto& p : store.all()) fill(p->value, 3);
  const auto optimizer = make_optimizer(config, store, 0.1);
  for (int k = 0; k < 4; ++k) {
    for (const auto& p : store.all()) {
      fill(p->slot.grad, k);
      p->slot.touched = true;
    }
    const StepDecision decision;
    optimizer->step(store, cpu_kernels(), 0.1, &decision);
  }
  std::vector<std::vector<float>> values;
  for (const auto& p : store.all()) values.emplace_back(p->value.span<float>().begin(), p->value.span<float>().end());
  return values;
}

TEST(Optimizer, DecayLeavesNormsAndBiasesAlone) {
  for (const OptimizerKind kind : kAllOptimizers)
    for (const MissingGradient missing : {MissingGradient::zero, MissingGradient::skip}) {
      SCOPED_TRACE(name_of(kind));
      OptimizerConfig c;
      c.become(kind);
      c.missing_gradient = missing;
      const auto without = values_after_steps(c);
      c.weight_decay = 0.1;
      const auto all = values_after_steps(c);
      c.decay = DecayedParameters::weights;
      const auto weights = values_after_steps(c);
      for (const size_t matrix : {0, 2}) EXPECT_EQ(weights[matrix], all[matrix]) << matrix;
      EXPECT_EQ(weights[1], without[1]);
      EXPECT_NE(all[1], without[1]);
    }
}

TEST(Optimizer, UsualValuesAreThoseOfItsName) {
  const auto read = [](const std::string& text) {
    return read_config<OptimizerConfig>(config_tree_from_text(text, "x.yaml"));
  };
  EXPECT_EQ(read("name: nag").momentum, 0.99);
  EXPECT_EQ(read("name: sgd").momentum, 0.9);
  EXPECT_EQ(read("name: adam").eps, 1e-8);
  EXPECT_EQ(read("name: rmsprop_tf").eps, 1e-3);
  EXPECT_EQ(read("{eps: 0.5, momentum: 0.2, name: rmsprop_tf}").eps, 0.5);
  OptimizerConfig c = read("{name: adam, momentum: 0.7}");
  c.become(OptimizerKind::sgd);
  EXPECT_EQ(c.momentum, 0.7) << "was asked for";
  EXPECT_THAT([&] { read("{name: sgd, nesterov: true, dampening: 0.1}"); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("'nesterov' needs momentum and no dampening")));
}

TEST(Optimizer, TheOneOfACheckpointIsKnown) {
  for (const OptimizerKind was : kAllOptimizers)
    for (const bool older : {false, true}) {
      if (older && was != OptimizerKind::nag && was != OptimizerKind::adam) continue;
      ParameterStore store;
      store.add("w", {3}, {});
      store.allocate(DType::f32);
      OptimizerConfig config;
      config.become(was);
      StateDict state;
      make_optimizer(config, store, 0.1)->save(store, state);
      if (older) state.texts.clear();
      for (const OptimizerKind now : kAllOptimizers) {
        config.become(now);
        if (now == was)
          EXPECT_NO_THROW(check_optimizer(config, state));
        else
          EXPECT_THAT([&] { check_optimizer(config, state); },
                      testing::ThrowsMessage<UsageError>(testing::HasSubstr(fmt::format(
                          "was trained with optimizer.name: {}, now it is {}", name_of(was), name_of(now)))));
      }
    }
}

/// A run that gets momentum only now begins with it as a new run would.
TEST(Optimizer, MomentumMayComeLater) {
  for (const OptimizerKind kind : {OptimizerKind::sgd, OptimizerKind::rmsprop_tf}) {
    ParameterStore store;
    Parameter* w = store.add("w", {3}, {});
    store.allocate(DType::f32);
    OptimizerConfig config;
    config.become(kind);
    config.momentum = 0.0;
    const auto before = make_optimizer(config, store, 0.1);
    EXPECT_EQ(before->bytes(), kind == OptimizerKind::sgd ? 0 : store.values().bytes());
    StateDict state;
    before->save(store, state);
    config.momentum = 0.5;
    config.dampening = 0.5;
    const auto after = make_optimizer(config, store, 0.1);
    after->load(store, state);
    store.kernels().fill(w->slot.grad, 1.0);
    const StepDecision decision;
    after->step(store, cpu_kernels(), 1.0, &decision);
    EXPECT_NEAR(w->value.as<float>()[0], kind == OptimizerKind::sgd ? -1.0 : -1.0 / std::sqrt(1.001), 1e-6);
  }
}

TEST(Optimizer, StateOfAnotherShapeIsAnError) {
  ParameterStore small, large;
  small.add("w", {3}, {});
  large.add("w", {4}, {});
  small.allocate(DType::f32);
  large.allocate(DType::f32);
  StateDict state;
  make_optimizer({}, small, 0.1)->save(small, state);
  EXPECT_THROW(make_optimizer({}, large, 0.1)->load(large, state), Error);
}

}  // namespace
}  // namespace qn::test
