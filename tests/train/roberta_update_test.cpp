// Updates of RoBERTa, pretrained and finetuned, against fairseq's trainer.
#include <gtest/gtest.h>

#include "golden_optimizer.h"
#include "models/golden_roberta.h"
#include "support/golden.h"
#include "support/test_comm.h"
#include "support/tolerance.h"
#include "train/lr_schedule.h"
#include "train/update.h"

namespace qn::test {
namespace {

/// A tensor by name; where the file has none it was never touched.
void expect_stored(const Hdf5File& file, const std::string& group, const Module& model,
                   const std::function<std::vector<double>(const Parameter&)>& value,
                   const std::function<std::vector<double>(const std::string&)>& untouched) {
  for (const auto& p : model.parameters().all()) {
    if (p->name.ends_with("k_proj.bias")) continue;  // its gradient is rounding noise, which Adam makes visible
    const std::string dataset = group + "/" + p->name;
    const std::vector<double> expected = file.exists(dataset) ? file.read<double>(dataset) : untouched(p->name);
    EXPECT_TRUE(close(value(*p), expected, kTrajectoryTolerance)) << dataset;
  }
}

void expect_parameters(const Hdf5File& file, const std::string& group, const std::string& start, const Module& model) {
  expect_stored(
      file, group, model, [](const Parameter& p) { return to_doubles(p.value); },
      [&](const std::string& name) { return file.read<double>(start + "/" + name); });
}

void check_trainer(const Hdf5File& file, const std::string& group) {
  SCOPED_TRACE(group);
  const auto model = load_golden_roberta(file, group + "/model", DType::f32);
  OptimizerConfig config = golden_optimizer_config(file, group);
  config.missing_gradient = MissingGradient::skip;  // as on one process of fairseq's
  const auto optimizer = make_optimizer(config, model->parameters(), golden_initial_lr(file, group));
  UpdateRunner runner(*model, cpu_kernels(), comm(), {.clip_norm = config.clip_norm, .skip_missing = true});
  const auto stored = [&](const char* name) { return file.read<double>(group + "/" + name); };
  const auto lr = stored("lr"), loss = stored("loss"), norm = stored("gnorm"), samples = stored("sample_size");
  const ScheduleConfig schedule{.name = Schedule::polynomial,
                                .lr = file.float_attribute(group, "lr_configured"),
                                .warmup_updates = file.int_attribute(group, "warmup_updates"),
                                .total_updates = file.int_attribute(group, "total_num_update")};
  std::unique_ptr<RobertaPass> micro;
  std::vector<int32_t> labels;
  for (size_t u = 0; u < lr.size(); ++u) {
    const std::string update = group + "/update_" + std::to_string(u);
    const auto fetch = [&](int64_t i) -> MicroBatch {
      const std::string tokens = update + "/tokens_" + std::to_string(i),
                        targets = update + "/targets_" + std::to_string(i);
      const bool sentences = file.shape(targets).rank() == 1;
      micro = make_roberta_pass(file, tokens, sentences ? "" : targets, DType::f32, {});
      labels = sentences ? read_ids(file, targets) : micro->targets;
      return {[&, sentences](Tape& tape) {
                return sentences ? cross_entropy(tape, model->sentence_logits(tape, micro->batch), labels)
                                 : model->masked_losses(tape, micro->batch, micro->masked_rows, labels);
              },
              std::ssize(labels)};
    };
    EXPECT_EQ(learning_rate(schedule, static_cast<int64_t>(u), 0), lr[u]);
    const UpdateResult result =
        runner.run(static_cast<int64_t>(u), file.int_attribute(group, "update_freq"), fetch, *optimizer, lr[u]);
    EXPECT_TRUE(close(result.loss, loss[u], kLossTolerance)) << update;
    EXPECT_TRUE(close(result.grad_norm, norm[u], kGradientTolerance)) << update;
    EXPECT_EQ(static_cast<double>(result.sample_size), samples[u]) << update;
    const std::string after = group + "/params_after_" + std::to_string(u + 1);
    if (file.exists(after)) expect_parameters(file, after, group + "/model/params", *model);
  }
  StateDict state;
  optimizer->save(model->parameters(), state);
  for (const auto& [ours, theirs] :
       {std::pair{"optimizer/mean/", "/exp_avg"}, std::pair{"optimizer/square/", "/exp_avg_sq"}})
    expect_stored(
        file, group + theirs, *model,
        [&, prefix = std::string(ours)](const Parameter& p) { return to_doubles(state.tensor(prefix + p.name)); },
        [&](const std::string& name) {
          return std::vector<double>(static_cast<size_t>(model->parameters().find(name)->shape.elements()));
        });
}

TEST(RobertaUpdateGolden, WholeUpdatesOfEveryTrainer) {
  QN_GOLDEN(path, "roberta_train.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  int trainers = 0;
  for (const std::string& group : file.members(""))
    if (group.starts_with("trainer_")) {
      check_trainer(file, group);
      ++trainers;
    }
  EXPECT_EQ(trainers, 2);
}

}  // namespace
}  // namespace qn::test
