#include "cli/run_check.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <iostream>

#include "cli/signals.h"
#include "core/folder_lock.h"
#include "tasks/model_file.h"
#include "tasks/run.h"
#include "train/start_checks.h"
#include "train/trainer.h"

namespace qn::cli {
namespace {

/// What the data and the model say about the configuration.
void check_task(ProblemList& problems, const RunConfig& config, bool quantize) {
  std::unique_ptr<RunTask> task;
  if (!problems.collect([&] { task = make_task(config); }, true)) return;
  const bool open = problems.collect([&] { task->open_training(); });
  problems.collect(
      [&] { make_run_plan(task->module(), config.quant_noise, quantize ? &config.ipq : nullptr, config.ipq); }, true);
  if (!open || quantize) return;
  problems.collect([&] {
    check_schedule(in_updates(config.schedule, task->updates_per_epoch(config.train.micro_batches)),
                   total_updates(config.train, *task));
  });
  problems.collect([&] { check_noise_schedule(config.quant_noise, total_updates(config.train, *task)); });
}

/// Of the file that the run will write. The trainer's own module may be quantized already.
uint64_t packed_bytes(const RunConfig& config, const Trainer& trainer) {
  const auto fresh = make_task(config);
  const PackedVocabulary vocabulary = packed_vocabulary(*fresh, config.ipq.vocabulary);
  return predict_packed_sizes(
             fresh->module(), trainer.plan(),
             packed_metadata(*fresh, trainer.original_parameters(), config.ipq.centroid_gradient, trainer.plan()),
             vocabulary.tensors())
      .total_bytes();
}

int report(const ProblemList& problems, Communicator& comm) {
  if (comm.is_root()) {
    int64_t count = 0;
    for (const std::string& text : problems.texts()) {
      spdlog::error("{}", text);
      count += 1 + std::count(text.begin(), text.end(), '\n');  // a configuration has a line for each
    }
    spdlog::error("the run would not start: {} problem{}", count, count == 1 ? "" : "s");
  }
  return problems.of_configuration() ? kUsage : kFailure;
}

}  // namespace

int check_run(const RunToCheck& run, Communicator& comm) {
  end_on_stop_signals();  // there is nothing to save
  ProblemList problems;
  RunConfig config;
  const Kernels* kernels = nullptr;
  problems.collect([&] { kernels = &kernels_on(run.compute.device, run.compute.share_gpu, comm); });
  if (comm.is_root()) problems.collect([&] { run.compute.check_profile(); });
  if (problems.collect([&] { config = run.config.read(); })) {
    problems.collect([&] { check_run_ends(config, run.quantize); });
    const std::filesystem::path packed = run.quantize ? packed_file(run.out, config) : std::filesystem::path();
    if (comm.is_root()) {
      check_files(problems, config, run.quantize, !run.fresh, packed);
      problems.collect([&] { check_unlocked(config.checkpoint.dir, "checkpoint.dir"); });
    }
    check_task(problems, config, run.quantize);
  }
  problems.gather(comm);
  if (!problems.empty()) return report(problems, comm);

  std::string summary;
  const auto go_through = [&] {
    const auto task = make_task(config);
    Trainer trainer(
        config, dump_config(config), *task, comm,
        {.quantize = run.quantize, .resume = !run.fresh, .dry = true, .stop_requested = {}, .kernels = kernels});
    summary = trainer.check_summary(run.quantize ? packed_bytes(config, trainer) : 0);
  };
  if (comm.size() > 1)
    go_through();  // what one rank throws ends all of them
  else if (!problems.collect(go_through))
    return report(problems, comm);
  if (comm.is_root()) std::cout << summary << std::flush;
  return kSuccess;
}

}  // namespace qn::cli
