#include <spdlog/spdlog.h>

#include <chrono>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/choice_option.h"
#include "cli/commands.h"
#include "comm/watchdog.h"
#include "core/profiler.h"
#include "core/text.h"
#include "data/dictionary.h"
#include "tasks/model_file.h"
#include "tasks/scoring.h"
#include "train/precision.h"

namespace qn::cli {
namespace {

struct EvalArguments {
  std::string file, data, split = "test", bpe_marker;
  BreakMode break_mode = BreakMode::none;
  Precision precision = Precision::fp32;
  ComputeOptions compute;
  int64_t context_window = 0, tokens_per_sample = 0, max_tokens = 8192;
  double watchdog_seconds = CommConfig{}.watchdog_seconds;
  bool json = false;
};

EvalOptions options_of(const EvalArguments& a, const ModelFile& file, const Dictionary& dictionary, DType dtype) {
  EvalOptions options{.break_mode = a.break_mode,
                      .tokens_per_sample = a.tokens_per_sample > 0 ? a.tokens_per_sample : file.info.tokens_per_sample,
                      .context_window = a.context_window,
                      .max_tokens = a.max_tokens,
                      .dtype = dtype,
                      .continues = {}};
  if (!a.bpe_marker.empty())
    options.continues = [&dictionary, marker = a.bpe_marker](int32_t id) {
      return dictionary.symbol(id).ends_with(marker);
    };
  return options;
}

void print_result(const EvalArguments& a, const ModelFile& file, const Score& result, double seconds) {
  const uint64_t bytes = std::filesystem::file_size(a.file);
  const double original = 4.0 * static_cast<double>(file.info.parameters);
  if (a.json) {
    const nlohmann::ordered_json json{
        {"model", a.file},
        {"kind", name_of(file.kind)},
        {"split", a.split},
        {"tokens", result.tokens},
        {"words", result.words},
        {"loss_base2", result.base2()},
        {"perplexity", result.perplexity()},
        {"token_perplexity", result.token_perplexity()},
        {"bytes", bytes},
        {"parameters", file.info.parameters},
        {"ratio", file.kind == ModelFileKind::packed ? original / static_cast<double>(bytes) : 1.0},
        {"seconds", seconds}};
    std::cout << json.dump() << std::endl;
    return;
  }
  std::cout << fmt::format("{} ({} {})\n", a.file, name_of(file.kind), file.state);
  if (file.kind == ModelFileKind::packed)
    std::cout << fmt::format("  {} bytes on disk, {:.2f}x smaller than {} in fp32\n",
                             group_digits(static_cast<int64_t>(bytes)), original / static_cast<double>(bytes),
                             format_bytes(static_cast<uint64_t>(original)));
  std::cout << fmt::format("  {}: {} tokens in {:.1f} s, loss {:.4f} bits, perplexity {:.2f}", a.split,
                           group_digits(result.tokens), seconds, result.base2(), result.perplexity());
  if (result.words != result.tokens)
    std::cout << fmt::format(" per word ({} words), {:.2f} per token", group_digits(result.words),
                             result.token_perplexity());
  std::cout << std::endl;
}

ModelFile load(const EvalArguments& a, const Kernels& kernels) {
  const ProfileScope phase(Phase::checkpoint);
  return load_model_file(a.file, kernels);
}

int run_eval(const EvalArguments& a, const Kernels& kernels, Communicator& comm) {
  const auto watchdog = start_watchdog(comm, a.watchdog_seconds);
  const ModelFile file = load(a, kernels);
  const Dictionary dictionary = Dictionary::load(std::filesystem::path(a.data) / "dict.txt");
  QN_CHECK(
      hex64(dictionary.hash()) == file.info.dictionary_hash,
      "{}/dict.txt is not the dictionary of this model (hash {}, the model has {}): prepare the text with --dict and "
      "the dictionary that the model was trained with",
      a.data, hex64(dictionary.hash()), file.info.dictionary_hash);
  const TokenStream stream = TokenStream::open(a.data, a.split);
  stream.check_vocabulary(dictionary.size());
  set_product_precision(a.precision, kernels);
  const auto start = std::chrono::steady_clock::now();
  const Score result = evaluate(*file.model, kernels, comm, stream,
                                options_of(a, file, dictionary, activation_type(a.precision, kernels, comm)));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (comm.is_root()) print_result(a, file, result, seconds);
  return kSuccess;
}

}  // namespace

Command add_eval(CLI::App& app) {
  auto a = std::make_shared<EvalArguments>();
  app.add_option("file", a->file, "Packed model (.safetensors) or checkpoint (.h5)")->required();
  app.add_option("-d,--data", a->data, "Prepared folder with the model's dict.txt and the split")->required();
  app.add_option("--split", a->split, "Split to score")->capture_default_str();
  app.add_option("--context-window", a->context_window, "Tokens of context that every block gets at least")
      ->capture_default_str();
  app.add_option("--tokens-per-sample", a->tokens_per_sample,
                 "Longest input, context included (default: the length of training blocks)");
  add_choice(app, "--break-mode", a->break_mode, "Where inputs may end: anywhere, at sentences, one sentence each",
             {BreakMode::none, BreakMode::complete, BreakMode::eos});
  app.add_option("--max-tokens", a->max_tokens, "Tokens per batch")->capture_default_str();
  app.add_option("--bpe-marker", a->bpe_marker,
                 "Tokens ending in this belong to the next one, e.g. \"@@\": perplexity is then per word");
  add_choice(app, "--precision", a->precision,
             "fp32; tf32: fp32 with products in TF32 on GPUs; bf16: where the processor has instructions for it, "
             "else fp32; bf16_always: on any processor; fp16: GPUs only");
  app.add_option("--watchdog-seconds", a->watchdog_seconds, "As comm.watchdog_seconds of a run (0: off)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_flag("--json", a->json, "Print one JSON object");
  a->compute.add_to(app);
  app.footer("Loss is in bits (base 2), perplexity 2^loss; </s> and blank lines count, as in fairseq-eval-lm.");
  return [a](Communicator& comm) {
    const int code = a->compute.run(comm, [&](const Kernels& k) { return run_eval(*a, k, comm); });
    log_peak_memory(comm);
    return code;
  };
}

}  // namespace qn::cli
