// The subcommands: each adds its options to the parser and returns what to run once they are parsed.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "compress/held_weights.h"
#include "ops/kernels.h"
#include "tasks/run_config.h"
#include "train/device.h"
#include "train/shown_work.h"

namespace qn::cli {

/// Exit codes, documented in --help; kWatchdogExit (4) is one more.
inline constexpr int kSuccess = 0, kFailure = 1, kUsage = 2, kStopped = 3;

using Command = std::function<int(Communicator&)>;

Command add_prepare(CLI::App& app);
Command add_train(CLI::App& app);
Command add_quantize(CLI::App& app);
Command add_eval(CLI::App& app);
Command add_predict(CLI::App& app);
Command add_embed(CLI::App& app);
Command add_generate(CLI::App& app);
Command add_import(CLI::App& app);
Command add_export(CLI::App& app);
Command add_inspect(CLI::App& app);
Command add_explain(CLI::App& app);
Command add_status(CLI::App& app);
Command add_report(CLI::App& app);

/// --config, --set and --layers-to-keep, shared by the commands that run a model.
struct ConfigOptions {
  std::string file;
  std::vector<std::string> overrides;
  std::string from, layers_to_keep;
  bool help_config = false;

  void add_to(CLI::App& command);
  /// The option for `from`, for commands that have it.
  CLI::Option* add_from(CLI::App& command);
  /// Pruned as checkpoint.layers_to_keep says.
  RunConfig read() const;
};

/// --device, --share-gpu and --profile, for the commands that compute.
struct ComputeOptions {
  DeviceKind device = DeviceKind::cpu;
  std::string profile;
  bool share_gpu = false;

  void add_to(CLI::App& command);
  /// Throws qn::Error where the profile could not be written. For rank 0: other machines may lack the folder.
  void check_profile() const;
  /// Runs `work` on the device, profiled if `profile` names a file, and returns its exit code. At the end every rank
  /// writes its profile (a file that cannot be written is a warning: the run is done) and rank 0 logs the table. Call
  /// it on every rank.
  int run(Communicator& comm, const std::function<int(const Kernels&)>& work) const;
};
/// What `work` returns. While it lasts it is shown how far it is, if `here`: on a terminal all the time, elsewhere once
/// a minute.
template <typename Work>
auto shown_as(const char* what, bool here, const Work& work) {
  std::optional<ProgressReporter> progress;
  if (here) progress.emplace(ProgressOptions{});
  const ShownWork shown(what, progress ? &*progress : nullptr, nullptr);
  return work();
}
/// The option --layers-to-keep; `what` begins its description.
void add_layers_to_keep(CLI::App& command, std::string& layers, const std::string& what);
/// The option --weights.
void add_held_weights(CLI::App& command, HeldWeights& held);
/// The file that quantize writes: `out`, or checkpoint.dir's model.safetensors where it is empty.
std::filesystem::path packed_file(const std::string& out, const RunConfig& config);
/// The last line of a command. Call it on every rank.
void log_peak_memory(Communicator& comm);

}  // namespace qn::cli
