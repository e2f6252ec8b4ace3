#include <spdlog/spdlog.h>

#include <iostream>

#include "cli/commands.h"
#include "cli/run_check.h"
#include "cli/signals.h"
#include "comm/watchdog.h"
#include "tasks/run.h"
#include "train/start_checks.h"
#include "train/trainer.h"

namespace qn::cli {

namespace {

struct TrainArguments {
  ConfigOptions config;
  ComputeOptions compute;
  bool fresh = false, check = false;
};

int run_train(const TrainArguments& a, const Kernels& kernels, Communicator& comm) {
  const RunConfig config = a.config.read();
  ProblemList problems;
  if (comm.is_root()) check_files(problems, config, false, !a.fresh, {});
  problems.fail_if_any();
  const auto watchdog = start_watchdog(comm, config.comm.watchdog_seconds);
  const std::unique_ptr<Task> task = make_task(config);
  Trainer trainer(config, dump_config(config), *task, comm,
                  {.quantize = false,
                   .resume = !a.fresh,
                   .stop_requested = stop_requested,
                   .abandon_update = stop_requested,
                   .kernels = &kernels});
  const Outcome outcome = trainer.run();
  const std::string last = (std::filesystem::path(config.checkpoint.dir) / "checkpoint_last.h5").string();
  if (outcome == Outcome::stopped) {
    spdlog::info("stopped after update {}; saved to {}: run the same command to go on", trainer.update(), last);
    return kStopped;
  }
  spdlog::info("done after {} updates: {}", trainer.update(), last);
  return kSuccess;
}

}  // namespace

Command add_train(CLI::App& app) {
  auto a = std::make_shared<TrainArguments>();
  a->config.add_to(app);
  app.add_flag("--fresh", a->fresh,
               "Start anew even if checkpoint.dir holds a run: its files are moved to a folder discarded-TIME in it");
  app.add_flag("--check", a->check,
               "Only say what is wrong with this run, or what it will take: memory, time, disk. Writes nothing");
  a->compute.add_to(app);
  app.footer(
      "A run found in checkpoint.dir is resumed, on any number of ranks.\n"
      "Example: launch/run -n 2 build/release/bin/quantnoise train -c configs/wikitext2_small.yaml");
  return [a](Communicator& comm) {
    if (a->config.help_config) {
      if (comm.is_root()) std::cout << describe_run_config();
      return kSuccess;
    }
    if (a->check) return check_run({.config = a->config, .compute = a->compute, .fresh = a->fresh}, comm);
    const int code = a->compute.run(comm, [&](const Kernels& k) { return run_train(*a, k, comm); });
    log_peak_memory(comm);
    return code;
  };
}

}  // namespace qn::cli
