#include <spdlog/spdlog.h>

#include <iostream>

#include "cli/commands.h"
#include "train/trainer.h"

namespace qn::cli {

Command add_train(CLI::App& app) {
  auto options = std::make_shared<ConfigOptions>();
  options->add_to(app);
  auto fresh = std::make_shared<bool>(false);
  app.add_flag("--fresh", *fresh, "Start anew even if checkpoint.dir holds a run (its checkpoints get replaced)");
  app.footer(
      "A run found in checkpoint.dir is resumed, on any number of ranks.\n"
      "Example: launch/run -n 2 build/release/bin/quantnoise train -c configs/wikitext2_small.yaml");
  return [options, fresh](Communicator& comm) {
    if (options->help_config) {
      if (comm.is_root()) std::cout << describe_config<RunConfig>();
      return kSuccess;
    }
    const RunConfig config = options->read();
    Trainer trainer(config, comm, {.quantize = false, .resume = !*fresh, .stop_requested = stop_requested});
    const Outcome outcome = trainer.run();
    const std::string last = (std::filesystem::path(config.checkpoint.dir) / "checkpoint_last.h5").string();
    if (outcome == Outcome::stopped) {
      spdlog::info("stopped after update {}; saved to {}: run the same command to go on", trainer.update(), last);
      return kStopped;
    }
    spdlog::info("done after {} updates: {}", trainer.update(), last);
    return kSuccess;
  };
}

}  // namespace qn::cli
