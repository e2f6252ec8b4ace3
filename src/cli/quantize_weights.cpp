#include "cli/quantize_weights.h"

#include <spdlog/spdlog.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/choice_option.h"
#include "cli/commands.h"
#include "cli/usage.h"
#include "comm/watchdog.h"
#include "core/text.h"
#include "train/start_checks.h"

namespace qn::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kExclusive[] = {"--config", "--set",   "--from", "--layers-to-keep",
                                      "--vocab",  "--fresh", "--check"};

/// "model.safetensors" and "model.safetensors.index.json" give "model.packed.safetensors".
fs::path default_output(const fs::path& files) {
  std::string name = files.filename().string();
  return files.parent_path() / (name.substr(0, name.find(".safetensors")) + ".packed.safetensors");
}

ForeignRules rules_of(const ForeignArguments& a) {
  if (!a.rules.empty()) return read_foreign_rules(a.rules);
  if (a.bits == 0) return {};
  return {.product = std::nullopt, .scalar = ScalarRules{.options = {.bits = a.bits, .method = a.range}}};
}

nlohmann::ordered_json json_of(const SizeReport& sizes, uint64_t original_bytes) {
  return {{"original_bytes", original_bytes},
          {"bytes", sizes.total_bytes()},
          {"sizes", nlohmann::ordered_json::parse(sizes.to_json())}};
}

void print_summary(const SizeReport& sizes, uint64_t original_bytes) {
  std::cout << fmt::format("the original: {}; {:.2f} times smaller\n", format_bytes(original_bytes),
                           static_cast<double>(original_bytes) / static_cast<double>(sizes.total_bytes()));
}

void report_dry_run(const ForeignWeights& weights, const TensorFiles& files, bool json) {
  const SizeReport sizes = weights.predicted_sizes();
  if (json) {
    std::cout << json_of(sizes, files.bytes()).dump() << std::endl;
    return;
  }
  std::cout << describe(weights.plan()) << '\n' << sizes.to_table();
  print_summary(sizes, files.bytes());
}

/// Errors are those of the written file.
void report(const fs::path& out, const TensorFiles& files, bool json) {
  const SafetensorsReader packed(out);
  const SizeReport sizes = packed_sizes(packed);
  const std::map<std::string, double> errors = relative_errors(packed, out.string(), files);
  if (json) {
    nlohmann::ordered_json result{{"file", out.string()}};
    result.update(json_of(sizes, files.bytes()));
    result["relative_errors"] = errors;
    std::cout << result.dump() << std::endl;
    return;
  }
  size_t width = 6;
  for (const auto& [name, error] : errors) width = std::max(width, name.size());
  std::cout << sizes.to_table();
  print_summary(sizes, files.bytes());
  std::cout << fmt::format("\n{:<{}}  relative error\n", "tensor", width);
  for (const auto& [name, error] : errors) std::cout << fmt::format("{:<{}}  {:.6f}\n", name, width, error);
}

}  // namespace

void ForeignArguments::add_to(CLI::App& command) {
  CLI::Option* weights = command.add_option(
      "--weights", files,
      "Instead of a run: a safetensors file of another program, an index of several (.index.json), or their folder");
  for (const char* option : kExclusive) weights->excludes(option);
  CLI::Option* rules_file =
      command.add_option("--rules", rules, "With --weights: which tensors, and how (docs/formats.md, section 8)");
  CLI::Option* width =
      command.add_option("--bits", bits, "With --weights: every matrix to integers of this many bits, without rules")
          ->check(whole_number(kMinScalarBits, kMaxScalarBits))
          ->excludes(rules_file);
  add_choice(command, "--range", range, "With --bits: what the levels span")->needs(width);
  add_choice(command, "--centroids", options.centroids, "With --weights: how centroids are stored")->needs(weights);
  command.add_option("--kmeans-iterations", options.kmeans_iterations, "With --weights: iterations of k-means")
      ->check(whole_number(1))
      ->capture_default_str()
      ->needs(weights);
  command.add_option("--seed", options.seed, "With --weights: seed of the first centroids")
      ->check(whole_number(0))
      ->capture_default_str()
      ->needs(weights);
  rules_file->needs(weights);
  width->needs(weights);
}

int ForeignArguments::run(std::string out, bool dry_run, bool json, const Kernels& kernels, Communicator& comm) const {
  const TensorFiles tensors(files);
  ForeignWeights weights(tensors, rules_of(*this), options);
  if (dry_run) {
    if (comm.is_root()) report_dry_run(weights, tensors, json);
    return kSuccess;
  }
  const fs::path target = out.empty() ? default_output(tensors.path()) : fs::path(out);
  if (comm.is_root()) check_output_file(target, "--out", FileKind::safetensors, tensors.files());
  const auto watchdog = start_watchdog(comm, CommConfig{}.watchdog_seconds);
  weights.quantize(target, comm, kernels);
  if (comm.is_root()) report(target, tensors, json);
  return kSuccess;
}

}  // namespace qn::cli
