// quantnoise: entry point, command line, and the one place where errors become messages and exit codes.
#include <spdlog/spdlog.h>

#include <chrono>
#include <iostream>
#include <thread>

#include "cli/commands.h"
#include "cli/output.h"
#include "cli/signals.h"
#include "cli/usage.h"
#include "comm/threads.h"
#include "core/fault_point.h"
#include "core/log.h"

namespace {

using namespace qn;

constexpr const char* kFooter =
    "`quantnoise train --help-config` explains every configuration key. Every command runs alone, under\n"
    "`mpirun -np N` (or launch/run -n N, which also divides up the cores) or under srun.\n"
    "Exit codes: 0 done, 1 failed (also: a damaged file, a full disk), 2 wrong usage (options, or keys and values of\n"
    "the configuration, also where what they name is not there), 3 stopped by a signal after saving (run the same "
    "command to go on), 4 ended by the\n"
    "watchdog because another rank was dead, stuck or silent (comm.watchdog_seconds; mpirun and launch/run may give\n"
    "the dead rank's own status, e.g. 137), 128 + N ended by signal N: there was nothing to save, or a second Ctrl-C\n"
    "did not wait for it, 141 nobody reads the output any more.\n"
    "Signals: SIGINT (Ctrl-C), SIGTERM, SIGHUP (unless under nohup), SIGUSR1 and SIGUSR2 are alike. train and\n"
    "quantize give the update under way up between two micro-batches, save, and end with 3; a Ctrl-C more than a\n"
    "second after the first signal ends them at once, without saving, with 130. Other commands end at once and leave\n"
    "no file half written, the packing at the end of quantize likewise (3: all else is saved).";

int run(int argc, char** argv, Communicator& comm) {
  CLI::App app(
      "Train language models, RoBERTa, translation and image networks with quantization noise,\n"
      "compress them by iterative product quantization, and run the packed file. Method: Fan, Stock et al., Training\n"
      "with Quantization Noise for Extreme Model Compression, ICLR 2021.");
  app.name("quantnoise");
  app.footer(kFooter);
  app.require_subcommand(1);
  std::string level = "info";
  app.add_option("--log-level", level, "trace, debug, info, warn or error")
      ->check(cli::log_level())
      ->capture_default_str();
  app.set_version_flag("--version", "quantnoise " QN_VERSION);
  app.fallthrough();
  struct Subcommand {
    CLI::App* options;
    cli::Command action;
    bool saves;
  };
  std::vector<Subcommand> commands;
  // `saves`: the command itself says from where on a signal finds nothing to save.
  const auto add = [&](const char* name, const char* description, auto adder, bool saves = false) {
    CLI::App* options = app.add_subcommand(name, description);
    commands.push_back({options, adder(*options), saves});
  };
  add("prepare", "Text files to a dictionary and binary token streams, pictures to splits of images", cli::add_prepare);
  add("train", "Train a model, or resume a run", cli::add_train, true);
  add("quantize", "Compress a trained model by iterative product quantization", cli::add_quantize, true);
  add("eval", "Perplexity, accuracy, ... of a checkpoint or a packed file", cli::add_eval);
  add("predict", "Labels and their probabilities for pictures or lines of text", cli::add_predict);
  add("embed", "Vectors of lines of text, by a model of sentences", cli::add_embed);
  add("generate", "Translations of lines of text, and their BLEU", cli::add_generate);
  add("import", "A model of Hugging Face's transformers, or a published EfficientNet, to a checkpoint",
      cli::add_import);
  add("export", "A packed file back to a plain safetensors file, or a model to transformers", cli::add_export);
  add("inspect", "What is in a packed file or a checkpoint, tensor by tensor", cli::add_inspect);
  add("explain", "What happens to every weight: noise, quantizer, bits, bytes", cli::add_explain);
  add("status", "What a run does right now, how far it is, and whether it is well", cli::add_status);
  add("report", "Runs as one HTML page: curves, stages, sizes, differences", cli::add_report);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (!comm.is_root()) return error.get_exit_code() == 0 ? cli::kSuccess : cli::kUsage;
    return cli::report_usage(app, error);
  }
  init_logging(comm.rank(), comm.size(), level);
  announce_faults();
  cli::refuse_empty_values(app);
  for (const Subcommand& command : commands) {
    if (!command.options->parsed()) continue;
    if (!command.saves) cli::end_on_stop_signals();
    return command.action(comm);
  }
  return cli::kUsage;
}

/// Reports an error that ends the job. When all ranks fail alike, rank 0 speaks first and ends the others before they
/// repeat it.
int report_failure(Communicator* comm, const std::string& message, int code = cli::kFailure) {
  if (comm != nullptr && !comm->is_root()) std::this_thread::sleep_for(std::chrono::seconds(2));
  spdlog::error("{}", message);
  if (comm != nullptr && comm->size() > 1) {
    spdlog::default_logger()->flush();
    comm->abort(code);
  }
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  qn::cli::block_stop_signals();
  qn::cli::guard_output();
  std::unique_ptr<qn::Communicator> comm;
  try {
    qn::init_logging(0, 1, "info");
    qn::settle_threads(argv);
    qn::cli::take_stop_signals();
    comm = qn::make_communicator();
    return qn::cli::finish_output(run(argc, argv, *comm));
  } catch (const qn::UsageError& error) {
    return report_failure(comm.get(), error.what(), qn::cli::kUsage);
  } catch (const std::bad_alloc&) {
    return report_failure(comm.get(), "out of memory: use smaller micro-batches (data.max_tokens) or a smaller model");
  } catch (const std::exception& error) {
    return report_failure(comm.get(), error.what());
  }
}
