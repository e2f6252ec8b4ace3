// quantnoise: entry point, command line, and the one place where errors become messages and exit codes.
#include <spdlog/spdlog.h>

#include <chrono>
#include <iostream>
#include <thread>

#include "cli/commands.h"
#include "cli/output.h"
#include "comm/threads.h"
#include "core/log.h"

namespace {

using namespace qn;

constexpr const char* kFooter =
    "Every command runs alone, under `mpirun -np N` (or launch/run -n N, which also pins threads) or under srun.\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 stopped by a signal after saving (run the same command to go on),\n"
    "4 ended by the watchdog on every rank because one was dead, stuck or silent (comm.watchdog_seconds).";

int run(int argc, char** argv, Communicator& comm) {
  CLI::App app(
      "Train language models with quantization noise, compress them by iterative product quantization, and run\n"
      "the packed file. Method: Fan, Stock et al., Training with Quantization Noise for Extreme Model\n"
      "Compression, ICLR 2021.");
  app.name("quantnoise");
  app.footer(kFooter);
  app.require_subcommand(1);
  std::string level = "info";
  app.add_option("--log-level", level, "trace, debug, info, warn or error")->capture_default_str();
  app.set_version_flag("--version", "quantnoise " QN_VERSION);
  app.fallthrough();
  std::vector<std::pair<CLI::App*, cli::Command>> commands;
  const auto add = [&](const char* name, const char* description, auto adder) {
    CLI::App* command = app.add_subcommand(name, description);
    commands.emplace_back(command, adder(*command));
  };
  add("prepare", "Text files to a dictionary and binary token streams", cli::add_prepare);
  add("train", "Train a language model, or resume a run", cli::add_train);
  add("quantize", "Compress a trained model by iterative product quantization", cli::add_quantize);
  add("eval", "Perplexity of a checkpoint or a packed file", cli::add_eval);
  add("export", "A packed file back to a plain safetensors file", cli::add_export);
  add("inspect", "What is in a packed file or a checkpoint, tensor by tensor", cli::add_inspect);
  add("explain", "What happens to every weight: noise, quantizer, bits, bytes", cli::add_explain);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (!comm.is_root()) return error.get_exit_code() == 0 ? cli::kSuccess : cli::kUsage;
    return app.exit(error) == 0 ? cli::kSuccess : cli::kUsage;
  }
  init_logging(comm.rank(), comm.size(), level);
  cli::install_signal_handlers();
  for (const auto& [command, action] : commands)
    if (command->parsed()) return action(comm);
  return cli::kUsage;
}

/// Reports an error that ends the job. When all ranks fail alike, rank 0 speaks first and ends the others before they
/// repeat it.
int report_failure(Communicator* comm, const std::string& message) {
  if (comm != nullptr && !comm->is_root()) std::this_thread::sleep_for(std::chrono::seconds(2));
  spdlog::error("{}", message);
  if (comm != nullptr && comm->size() > 1) {
    spdlog::default_logger()->flush();
    comm->abort(cli::kFailure);
  }
  return cli::kFailure;
}

}  // namespace

int main(int argc, char** argv) {
  qn::cli::guard_output();
  qn::settle_threads(argv);
  std::unique_ptr<qn::Communicator> comm;
  try {
    qn::init_logging(0, 1, "info");
    comm = qn::make_communicator();
    return qn::cli::finish_output(run(argc, argv, *comm));
  } catch (const std::bad_alloc&) {
    return report_failure(comm.get(), "out of memory: use smaller micro-batches (data.max_tokens) or a smaller model");
  } catch (const std::exception& error) {
    return report_failure(comm.get(), error.what());
  }
}
