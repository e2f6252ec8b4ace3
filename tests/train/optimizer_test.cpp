// NAG and Adam against fairseq's trajectories.
#include "train/optimizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "core/hdf5_file.h"
#include "golden_optimizer.h"
#include "support/golden.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

/// The cases of optimizers.h5 that are trajectories of single tensors.
std::vector<std::string> trajectories(const Hdf5File& file) {
  std::vector<std::string> groups;
  for (const std::string& group : file.members(""))
    if (file.has_attribute(group, "optimizer") && !file.exists(group + "/model")) groups.push_back(group);
  EXPECT_FALSE(groups.empty());
  return groups;
}

/// One case of optimizers.h5: some tensors, and gradients for every step.
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
      for (const auto& [stored, mine] : {std::pair{"momentum_buffer", "optimizer/velocity/"},
                                         {"exp_avg", "optimizer/mean/"},
                                         {"exp_avg_sq", "optimizer/square/"}}) {
        if (file_.exists(path(p->name, stored))) {
          EXPECT_TRUE(close(state.tensor(mine + p->name).span<float>(), slice(p->name, stored, k), kOptimizerTolerance))
              << stored;
        }
      }
      if (file_.exists(path(p->name, "step"))) {
        EXPECT_EQ(state.integer("optimizer/steps/" + p->name),
                  file_.read<int64_t>(path(p->name, "step"))[static_cast<size_t>(k)]);
      }
    }
  }

  OptimizerKind kind() const { return config_.name; }
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
  QN_GOLDEN(golden, "optimizers.h5");
  const Hdf5File file(golden, Hdf5File::Mode::read);
  std::set<OptimizerKind> optimizers;
  for (const std::string& group : trajectories(file)) {
    SCOPED_TRACE(group);
    Trajectory run(file, group, MissingGradient::skip);
    optimizers.insert(run.kind());
    for (int64_t k = 0; k < run.steps(); ++k) {
      run.step(k);
      run.expect_state_after(k);
    }
  }
  EXPECT_EQ(optimizers, (std::set{OptimizerKind::adam, OptimizerKind::nag}));
}

TEST(OptimizerGolden, OneCallForAllParametersGivesTheSame) {
  QN_GOLDEN(golden, "optimizers.h5");
  const Hdf5File file(golden, Hdf5File::Mode::read);
  std::set<OptimizerKind> optimizers;
  for (const std::string& group : trajectories(file)) {
    Trajectory each(file, group, MissingGradient::skip), flat(file, group, MissingGradient::zero);
    const auto& tensors = each.store.all();
    // Where gradients are missing the two differ on purpose.
    if (std::any_of(tensors.begin(), tensors.end(),
                    [&](const auto& p) { return each.first_missing(p->name) < each.steps(); }))
      continue;
    optimizers.insert(each.kind());
    for (int64_t k = 0; k < each.steps(); ++k) {
      each.step(k);
      flat.step(k);
    }
    for (const auto& p : flat.store.all())
      EXPECT_TRUE(close(p->value.span<float>(), each.store.find(p->name)->value.span<float>(), 0.0))
          << group << " " << p->name;
  }
  EXPECT_EQ(optimizers, (std::set{OptimizerKind::adam, OptimizerKind::nag}));
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
  QN_GOLDEN(golden, "optimizers.h5");
  const Hdf5File file(golden, Hdf5File::Mode::read);
  for (const std::string& group : trajectories(file)) {
    SCOPED_TRACE(group);
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
