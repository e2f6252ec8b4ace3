#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/choice_option.h"
#include "cli/commands.h"
#include "cli/config_options.h"
#include "cli/usage.h"
#include "comm/watchdog.h"
#include "core/profiler.h"
#include "core/text.h"
#include "tasks/model_file.h"
#include "train/precision.h"

namespace qn::cli {
namespace {

struct EvalArguments {
  std::string file, layers_to_keep;
  EvalConfig config;
  Precision precision = Precision::fp32;
  HeldWeights held = HeldWeights::codes;
  ComputeOptions compute;
  double watchdog_seconds = CommConfig{}.watchdog_seconds;
  bool json = false;
};

void print_json(const EvalArguments& a, const ModelFile& file, const EvalReport& report, double ratio, double seconds) {
  nlohmann::ordered_json json{{"model", a.file}, {"kind", name_of(file.kind)}, {"split", a.config.split}};
  for (const MetricField& field : report.fields)
    std::visit([&](const auto& value) { json[field.name] = value; }, field.value);
  if (!a.layers_to_keep.empty()) json["layers_to_keep"] = a.layers_to_keep;
  json["bytes"] = file.bytes;
  json["parameters"] = file.parameters;
  json["ratio"] = ratio;
  json["seconds"] = seconds;
  std::cout << json.dump() << std::endl;
}

void print_result(const EvalArguments& a, const ModelFile& file, const EvalReport& report, double seconds) {
  const uint64_t bytes = file.bytes;
  const double original = 4.0 * static_cast<double>(file.parameters);
  const bool packed = file.kind == ModelFileKind::packed;
  const double ratio = packed ? original / static_cast<double>(bytes) : 1.0;
  if (a.json) return print_json(a, file, report, ratio, seconds);
  const bool pruned = !a.layers_to_keep.empty();
  std::cout << fmt::format("{} ({} {}){}\n", a.file, name_of(file.kind), file.state,
                           pruned ? ", layers kept: " + a.layers_to_keep : "");
  if (packed)
    std::cout << fmt::format("  {} bytes {}, {:.2f}x smaller than {} in fp32\n",
                             group_digits(static_cast<int64_t>(bytes)),
                             pruned ? "when exported with these layers (`export --packed`)" : "on disk", ratio,
                             format_bytes(static_cast<uint64_t>(original)));
  std::cout << fmt::format("  {}: {} in {:.1f} s, {}", a.config.split, report.amount, seconds, report.result)
            << std::endl;
}

ModelFile load(const EvalArguments& a, const Kernels& kernels) {
  const ProfileScope phase(Phase::checkpoint);
  return load_model_file(a.file, kernels, a.layers_to_keep, a.held);
}

bool finite(const EvalReport& report) {
  return std::all_of(report.fields.begin(), report.fields.end(), [](const MetricField& field) {
    const double* number = std::get_if<double>(&field.value);
    return number == nullptr || std::isfinite(*number);
  });
}

int run_eval(const EvalArguments& a, const Kernels& kernels, Communicator& comm) {
  const auto watchdog = start_watchdog(comm, a.watchdog_seconds);
  const ModelFile file = load(a, kernels);
  set_product_precision(a.precision, kernels);
  const auto start = std::chrono::steady_clock::now();
  const EvalReport report = shown_as("evaluating", comm.is_root(), [&] {
    return file.task->score_data(a.config, kernels, comm, activation_type(a.precision, kernels, comm));
  });
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (comm.is_root()) print_result(a, file, report, seconds);
  if (finite(report)) return kSuccess;
  if (comm.is_root())
    spdlog::error("{}: the result is not finite ({}): this model is of no use", a.file, report.result);
  return kFailure;
}

}  // namespace

Command add_eval(CLI::App& app) {
  auto a = std::make_shared<EvalArguments>();
  app.add_option("file", a->file, "Packed model (.safetensors) or checkpoint (.h5)")->required();
  app.add_option("-d,--data", a->config.data, "Prepared folder with the model's dict.txt and the split")->required();
  app.add_option("--split", a->config.split, "Split to score")->capture_default_str();
  add_config_options(app, a->config);
  app.get_option("--context-window")->check(whole_number(0));
  for (const char* option : {"--tokens-per-sample", "--max-tokens"}) app.get_option(option)->check(whole_number(1));
  add_layers_to_keep(app, a->layers_to_keep, "Score a network of these layers only");
  add_choice(app, "--precision", a->precision,
             "fp32; tf32: fp32 with products in TF32 on GPUs; bf16: where the processor has instructions for it, "
             "else fp32; bf16_always: on any processor; fp16: GPUs only");
  app.add_option("--watchdog-seconds", a->watchdog_seconds, "As comm.watchdog_seconds of a run (0: off)")
      ->check(watchdog_seconds())
      ->capture_default_str();
  app.add_flag("--json", a->json, "Print one JSON object (numbers that are not finite as null)");
  add_held_weights(app, a->held);
  a->compute.add_to(app);
  app.footer(
      "Loss is in bits (base 2), perplexity 2^loss; </s> and blank lines count, as in fairseq-eval-lm.\n"
      "A perplexity that is not finite is an error: status 1.");
  return [a](Communicator& comm) {
    const int code = a->compute.run(comm, [&](const Kernels& k) { return run_eval(*a, k, comm); });
    log_peak_memory(comm);
    return code;
  };
}

}  // namespace qn::cli
