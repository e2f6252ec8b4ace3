#include <spdlog/spdlog.h>

#include <filesystem>

#include "cli/choice_option.h"
#include "cli/commands.h"
#include "cli/usage.h"
#include "core/file_io.h"
#include "core/log.h"
#include "core/profile_report.h"
#include "core/text.h"
#include "ops/profiled_kernels.h"
#include "tasks/pruning.h"
#include "train/progress.h"
#include "train/start_checks.h"

namespace qn::cli {
namespace {

void report_profile(const Profiler& profiler, const std::filesystem::path& path, Communicator& comm) {
  const std::filesystem::path own = profile_path(path, comm.rank(), comm.size());
  spdlog::info("profile of rank {} of {}:\n{}", comm.rank(), comm.size(), profile_table(profiler));
  try {
    atomic_write_text(own, profile_trace(profiler, comm.rank()));
    spdlog::info("profile: {} ({}; its totals and this table cover the whole run): open it at https://ui.perfetto.dev",
                 own.string(), kept_events(profiler));
  } catch (const std::exception& error) {
    warn_of_this_rank(fmt::format("the profile is lost, the run is not: {}", error.what()));
  }
}

}  // namespace

void ConfigOptions::add_to(CLI::App& command) {
  command.add_option("-c,--config", file, "YAML configuration (see configs/); `inherits: other.yaml` is followed");
  command.add_option("-s,--set", overrides, "Override one key, e.g. --set train.max_updates=100 (repeatable)")
      ->take_all()
      ->allow_extra_args(false);
  add_layers_to_keep(command, layers_to_keep, "Layers of that checkpoint to go on with (checkpoint.layers_to_keep)");
  command.add_flag("--help-config", help_config, "Print every configuration key with type, default and meaning");
}

RunConfig ConfigOptions::read() const {
  return as_usage([this] {
    auto config = read_config<RunConfig>(file.empty() ? config_tree_from_text("", "defaults", overrides)
                                                      : load_config_tree(file, overrides));
    if (!from.empty()) config.checkpoint.init_from = from;
    if (!layers_to_keep.empty()) config.checkpoint.layers_to_keep = layers_to_keep;
    prune_config(config);
    return config;
  });
}

CLI::Option* ConfigOptions::add_from(CLI::App& command) {
  return command.add_option("--from", from, "Checkpoint of the trained dense model (checkpoint.init_from)");
}

void add_layers_to_keep(CLI::App& command, std::string& layers, const std::string& what) {
  command.add_option("--layers-to-keep", layers,
                     what + ": \"0,2,4\", counted from 0, or \"every-other\"; they are counted anew");
}

void add_held_weights(CLI::App& command, HeldWeights& held) {
  add_choice(command, "--weights", held,
             "Of a packed file: codes, multiplied as they are and no larger in memory than in the file, or "
             "decoded when it is loaded; --log-level debug tells how products are computed");
}

void ComputeOptions::add_to(CLI::App& command) {
  add_choice(command, "--device", device,
             "cpu, or cuda: every rank computes on the GPU of its number on its machine (tested on an emulated "
             "device, not on a GPU yet)");
  command.add_flag("--share-gpu", share_gpu, "Allow more ranks than GPUs on a machine");
  command.add_option(
      "--profile", profile,
      "Measure where the time goes: a table of phases and ops at the end, and the newest events in FILE "
      "(Chrome trace; of several ranks each writes its own: p.rank0.json, p.rank1.json, ... for p.json)");
}

void ComputeOptions::check_profile() const {
  if (!profile.empty()) check_output_file(profile, "--profile", FileKind::profile, {});
}

int ComputeOptions::run(Communicator& comm, const std::function<int(const Kernels&)>& work) const {
  if (comm.is_root()) check_profile();  // better now than after hours
  const Kernels& kernels = kernels_on(device, share_gpu, comm);
  if (profile.empty()) return work(kernels);
  Profiler profiler;
  const int code = work(profiled_kernels(kernels, profiler));
  report_profile(profiler, profile, comm);
  return code;
}

std::filesystem::path packed_file(const std::string& out, const RunConfig& config) {
  return out.empty() ? std::filesystem::path(config.checkpoint.dir) / "model.safetensors" : std::filesystem::path(out);
}

void log_peak_memory(Communicator& comm) {
  const int64_t own = peak_rss_bytes();
  auto largest = static_cast<double>(own);
  comm.all_reduce_max({&largest, 1});
  const auto total = static_cast<uint64_t>(comm.all_reduce_sum_value(own));
  if (comm.size() == 1)
    spdlog::info("peak memory: {}", format_bytes(total));
  else
    spdlog::info("peak memory: {} on the largest rank, {} on all {} together",
                 format_bytes(static_cast<uint64_t>(largest)), format_bytes(total), comm.size());
}

}  // namespace qn::cli
