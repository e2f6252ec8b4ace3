// NAG and Adam against fairseq's trajectories.
#include "train/optimizer.h"

#include <gtest/gtest.h>

#include <array>

#include "core/hdf5_file.h"
#include "golden_optimizer.h"
#include "support/golden.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

constexpr int64_t kSteps = 30;
constexpr std::array kTensors{"a", "b", "c"};

/// One case of optimizers.h5: three tensors, and gradients for every step.
class Trajectory {
 public:
  Trajectory(const Hdf5File& file, std::string group, MissingGradient missing_gradient)
      : file_(file), group_(std::move(group)), config_(golden_optimizer_config(file, group_)) {
    config_.missing_gradient = missing_gradient;
    lr_ = file.read<double>(group_ + "/lr");
    for (const std::string name : kTensors) store.add(name, file.shape(path(name, "param0")), {});
    store.allocate(DType::f32);
    for (const auto& p : store.all()) write(p->value, file.read<float>(path(p->name, "param0")));
    renew_optimizer();
  }

  void renew_optimizer() { optimizer = make_optimizer(config_, store, golden_initial_lr(file_, group_)); }

  void step(int64_t k) {
    store.begin_gradients();
    for (const auto& p : store.all()) {
      if (file_.read<int64_t>(path(p->name, "has_grad"))[static_cast<size_t>(k)] == 0) continue;
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

  bool is_nag() const { return config_.name == OptimizerKind::nag; }

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
    const auto size = static_cast<int64_t>(all.size()) / kSteps;
    return {all.begin() + k * size, all.begin() + (k + 1) * size};
  }

  const Hdf5File& file_;
  std::string group_;
  OptimizerConfig config_;
  std::vector<double> lr_;
};

TEST(OptimizerGolden, EveryTrajectory) {
  QN_GOLDEN_OR_SKIP(golden, "optimizers.h5");
  const Hdf5File file(golden, Hdf5File::Mode::read);
  int nag = 0, adam = 0;
  for (const std::string& group : file.members("")) {
    if (!group.starts_with("nag_") && !group.starts_with("adam_")) continue;
    SCOPED_TRACE(group);
    Trajectory run(file, group, MissingGradient::skip);
    ++(run.is_nag() ? nag : adam);
    for (int64_t k = 0; k < kSteps; ++k) {
      run.step(k);
      run.expect_state_after(k);
    }
  }
  EXPECT_GE(nag, 5);
  EXPECT_GE(adam, 3);
}

TEST(OptimizerGolden, OneCallForAllParametersGivesTheSame) {
  QN_GOLDEN_OR_SKIP(golden, "optimizers.h5");
  const Hdf5File file(golden, Hdf5File::Mode::read);
  for (const char* group : {"nag_cosine_wd", "adam_poly"}) {
    Trajectory each(file, group, MissingGradient::skip), flat(file, group, MissingGradient::zero);
    for (int64_t k = 0; k < kSteps; ++k) {
      each.step(k);
      flat.step(k);
    }
    for (const auto& p : flat.store.all())
      EXPECT_TRUE(close(p->value.span<float>(), each.store.find(p->name)->value.span<float>(), 0.0))
          << group << " " << p->name;
  }
}

TEST(OptimizerGolden, MissingGradientsCountAsZeroByDefault) {
  QN_GOLDEN_OR_SKIP(golden, "optimizers.h5");
  const Hdf5File file(golden, Hdf5File::Mode::read);
  Trajectory run(file, "adam_missing", OptimizerConfig().missing_gradient);
  run.step(0);  // b has no gradient in this step, but weight decay and the step counter go on
  StateDict state;
  run.optimizer->save(run.store, state);
  EXPECT_EQ(state.integer("optimizer/steps/b"), 1);
}

TEST(OptimizerGolden, SavedStateContinuesTheTrajectory) {
  QN_GOLDEN_OR_SKIP(golden, "optimizers.h5");
  const Hdf5File file(golden, Hdf5File::Mode::read);
  for (const char* group : {"nag_cosine_wd", "nag_poly_from_zero", "adam_missing"}) {
    SCOPED_TRACE(group);
    Trajectory run(file, group, MissingGradient::skip);
    for (int64_t k = 0; k < kSteps; ++k) {
      if (k == 13) {
        StateDict state;
        run.optimizer->save(run.store, state);
        run.renew_optimizer();
        run.optimizer->load(run.store, state);
      }
      run.step(k);
    }
    run.expect_state_after(kSteps - 1);
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
