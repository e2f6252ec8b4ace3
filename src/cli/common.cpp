#include <csignal>

#include "cli/commands.h"

namespace qn::cli {
namespace {

volatile std::sig_atomic_t g_stop = 0;

void on_signal(int signal) {
  if (g_stop != 0 && signal == SIGINT) std::signal(signal, SIG_DFL), std::raise(signal);
  g_stop = 1;
}

}  // namespace

bool stop_requested() { return g_stop != 0; }

void install_signal_handlers() {
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) std::signal(signal, on_signal);
}

void ConfigOptions::add_to(CLI::App& command) {
  command.add_option("-c,--config", file, "YAML configuration (see configs/); `inherits: other.yaml` is followed");
  command.add_option("-s,--set", overrides, "Override one key, e.g. --set train.max_updates=100 (repeatable)")
      ->take_all()
      ->allow_extra_args(false);
  command.add_flag("--help-config", help_config, "Print every configuration key with type, default and meaning");
}

RunConfig ConfigOptions::read() const {
  return read_config<RunConfig>(file.empty() ? config_tree_from_text("", "defaults", overrides)
                                             : load_config_tree(file, overrides));
}

}  // namespace qn::cli
