#include <algorithm>
#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/choice_option.h"
#include "cli/commands.h"
#include "cli/config_options.h"
#include "cli/line_input.h"
#include "core/file_io.h"
#include "core/text.h"
#include "tasks/generate_config.h"
#include "tasks/model_file.h"
#include "train/precision.h"
#include "train/start_checks.h"

namespace qn::cli {
namespace {

struct GenerateArguments {
  std::string file, data, text, split, out;
  GenerateConfig config;
  int64_t best = 1;
  Precision precision = Precision::fp32;
  HeldWeights held = HeldWeights::codes;
  ComputeOptions compute;
  bool json = false;
};

/// What is wrong with an option's value is wrong usage.
struct OptionChecker : ConfigChecker {
  void report(std::string_view key, const std::string& message) const override {
    std::string option(key);
    std::replace(option.begin(), option.end(), '_', '-');
    throw UsageError("--" + option + " " + message);
  }
};

/// What was written for a line, whose number counts from 1.
void print(const std::vector<Generated>& found, int64_t line, const GenerateArguments& a) {
  const int64_t most = std::max(a.best, a.config.samples);
  for (size_t i = 0; i < found.size() && static_cast<int64_t>(i) < most; ++i) {
    if (a.json)
      std::cout << nlohmann::ordered_json{{"line", line},
                                          {"text", found[i].text},
                                          {"score", found[i].score},
                                          {"tokens", found[i].token_scores.size()},
                                          {"token_scores", found[i].token_scores},
                                          {"finished", found[i].finished}}
                       .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)
                << '\n';
    else if (a.best > 1)
      std::cout << fmt::format("{:.4f}\t{}\n", found[i].score, found[i].text);
    else
      std::cout << found[i].text << '\n';
  }
}

std::string key_of(std::string option) {
  std::replace(option.begin(), option.end(), '-', '_');
  return option;
}

void write_text(GenerateArguments& a, RunTask& task, const Kernels& kernels, DType dtype) {
  LineInput in(a.text, "--text");
  for (std::vector<std::string> lines; !(lines = in.next(static_cast<size_t>(a.config.batch))).empty();) {
    for (const std::vector<Generated>& found : task.generate(a.data, lines, a.config, kernels, dtype))
      print(found, ++a.config.lines_before, a);
    std::cout.flush();
  }
}

void translate_split(const GenerateArguments& a, RunTask& task, const Kernels& kernels, DType dtype) {
  const auto start = std::chrono::steady_clock::now();
  const TranslationReport found =
      shown_as("translating", true, [&] { return task.generate_split(a.data, a.split, a.config, kernels, dtype); });
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (!a.out.empty()) {
    std::string text;
    for (const std::string& line : found.lines) text += line + '\n';
    atomic_write_text(a.out, text);
  }
  if (a.json) {
    nlohmann::ordered_json json{{"model", a.file}, {"split", a.split}};
    for (const MetricField& field : found.report.fields)
      std::visit([&](const auto& value) { json[field.name] = value; }, field.value);
    json["seconds"] = seconds;
    std::cout << json.dump() << std::endl;
    return;
  }
  std::cout << fmt::format("{}: {} in {:.1f} s, {}", a.split, found.report.amount, seconds, found.report.result)
            << std::endl;
}

/// Files that no output may take the place of.
std::vector<std::filesystem::path> inputs_of(const GenerateArguments& a) {
  std::vector<std::filesystem::path> inputs{a.file};
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(a.data, error))
    if (entry.path().filename().string().starts_with("dict.")) inputs.push_back(entry.path());
  return inputs;
}

int run_generate(GenerateArguments& a, const Kernels& kernels, Communicator& comm) {
  const DType dtype = activation_type(a.precision, kernels, comm);  // all ranks agree on it
  if (!comm.is_root()) return kSuccess;
  QN_CHECK_USAGE(a.text.empty() != a.split.empty(),
                 "name a text (--text FILE, - for standard input) or a prepared "
                 "split (--split test)");
  QN_CHECK_USAGE(a.best <= a.config.beam, "--best {} needs a beam as wide: --beam {}", a.best, a.best);
  QN_CHECK_USAGE(a.out.empty() || !a.split.empty(),
                 "--out is for the translations of a split (--split); those of --text are printed");
  QN_CHECK_USAGE(a.best == 1 || a.split.empty(), "--best is for --text; of a split the best translations are taken");
  if (!a.out.empty()) check_output_file(a.out, "--out", FileKind::text, inputs_of(a));
  a.config.validate(OptionChecker{});
  const ModelFile model = load_model_file(a.file, kernels, {}, a.held);
  set_product_precision(a.precision, kernels);
  a.text.empty() ? translate_split(a, *model.task, kernels, dtype) : write_text(a, *model.task, kernels, dtype);
  return kSuccess;
}

}  // namespace

Command add_generate(CLI::App& app) {
  auto a = std::make_shared<GenerateArguments>();
  app.add_option("file", a->file,
                 "Packed model (.safetensors) or checkpoint (.h5), of task translation or language_modeling")
      ->required();
  app.add_option("-d,--data", a->data,
                 "Folder of prepared data: for --split, for packed files that carry no vocabulary, and for checkpoints "
                 "whose data are elsewhere by now");
  app.add_option("-t,--text", a->text,
                 "Text to translate line by line, or of prompts to go on from, which may be empty lines; - is standard "
                 "input");
  app.add_option("--split", a->split, "Prepared split to translate, and to compare with its translations: BLEU");
  app.add_option("--out", a->out, "With --split: file for the translations");
  add_config_options(app, a->config);
  app.add_option("--best", a->best, "Print so many translations of each line, with their scores")
      ->capture_default_str();
  add_choice(app, "--precision", a->precision,
             "fp32; tf32: fp32 with products in TF32 on GPUs; bf16: where the processor has instructions for it, "
             "else fp32; bf16_always: on any processor; fp16: GPUs only");
  app.add_flag("--json", a->json, "Print JSON: an object per text with its scores, or one for a split");
  add_held_weights(app, a->held);
  a->compute.add_to(app);
  app.footer(
      "Translations: beam search as fairseq-generate does it. BLEU is that of sacreBLEU with tokenisation 13a, over "
      "the text as it "
      "is\n"
      "in the folder: what was tokenised before `prepare` stays so.\n"
      "Language models draw token by token until the line ends, or search when --beam is given. Random numbers are of\n"
      "seed, line, sample and place: other lines, --batch and threads change nothing. Scores are natural logarithms "
      "of\n"
      "what the model gives, whatever was left out of the drawing; a search divides them as it compares them. A text\n"
      "that outgrows the model's positions goes on from its last half; a search ends there.");
  return [a, &app](Communicator& comm) {
    for (const CLI::Option* option : app.get_options())
      if (option->count() > 0 && !option->get_lnames().empty()) a->config.given.insert(key_of(option->get_lnames()[0]));
    return a->compute.run(comm, [&](const Kernels& k) { return run_generate(*a, k, comm); });
  };
}

}  // namespace qn::cli
