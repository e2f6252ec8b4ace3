// Updates against fairseq's trainer.
#include <set>

#include "given_gradients.h"
#include "golden_optimizer.h"
#include "support/golden.h"
#include "support/test_comm.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

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

}  // namespace
}  // namespace qn::test
