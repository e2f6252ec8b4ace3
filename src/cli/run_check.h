// `train --check` and `quantize --check`.
#pragma once

#include <string>

#include "cli/commands.h"

namespace qn::cli {

/// A run as the command line describes it.
struct RunToCheck {
  const ConfigOptions& config;
  const ComputeOptions& compute;
  bool quantize = false, fresh = false;
  std::string out = {};  ///< of quantize; may be empty
};

/// Says everything that is wrong with a run before it starts, or what it will take, and writes nothing. Call it on
/// every rank. Returns the exit code: kSuccess if the run would start, kUsage if the configuration is wrong, else
/// kFailure.
int check_run(const RunToCheck& run, Communicator& comm);

}  // namespace qn::cli
