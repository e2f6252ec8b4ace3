#include <algorithm>
#include <chrono>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/choice_option.h"
#include "cli/commands.h"
#include "cli/config_options.h"
#include "core/file_io.h"
#include "core/text.h"
#include "tasks/model_file.h"
#include "train/precision.h"

namespace qn::cli {
namespace {

struct GenerateArguments {
  std::string file, data, text, split, out;
  GenerateConfig config;
  int64_t best = 1;
  Precision precision = Precision::fp32;
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

void print(const std::vector<Translated>& found, const GenerateArguments& a) {
  for (size_t i = 0; i < found.size() && static_cast<int64_t>(i) < a.best; ++i) {
    if (a.json)
      std::cout << nlohmann::ordered_json{{"text", found[i].text}, {"score", found[i].score}}.dump() << '\n';
    else if (a.best > 1)
      std::cout << fmt::format("{:.4f}\t{}\n", found[i].score, found[i].text);
    else
      std::cout << found[i].text << '\n';
  }
}

/// Up to `count` lines.
std::vector<std::string> read_lines(std::istream& in, int64_t count) {
  std::vector<std::string> lines;
  for (std::string line; std::ssize(lines) < count && std::getline(in, line);) {
    if (line.ends_with('\r')) line.pop_back();
    lines.push_back(std::move(line));
  }
  return lines;
}

void translate_text(const GenerateArguments& a, RunTask& task, const Kernels& kernels, DType dtype) {
  std::ifstream file;
  if (a.text != "-") {
    file.open(a.text);
    QN_CHECK_USAGE(file.good(), "--text: cannot read {}", a.text);
  }
  std::istream& in = a.text == "-" ? std::cin : file;
  for (std::vector<std::string> lines; !(lines = read_lines(in, a.config.batch)).empty();) {
    for (const std::vector<Translated>& found : task.generate(a.data, lines, a.config, kernels, dtype)) print(found, a);
    std::cout.flush();
  }
}

void translate_split(const GenerateArguments& a, RunTask& task, const Kernels& kernels, DType dtype) {
  const auto start = std::chrono::steady_clock::now();
  const TranslationReport found = task.generate_split(a.data, a.split, a.config, kernels, dtype);
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

int run_generate(const GenerateArguments& a, const Kernels& kernels, Communicator& comm) {
  if (!comm.is_root()) return kSuccess;
  QN_CHECK_USAGE(a.text.empty() != a.split.empty(),
                 "name a text (--text FILE, - for standard input) or a prepared "
                 "split (--split test)");
  QN_CHECK_USAGE(a.best <= a.config.beam, "--best {} needs a beam as wide: --beam {}", a.best, a.best);
  a.config.validate(OptionChecker{});
  const ModelFile model = load_model_file(a.file, kernels);
  set_product_precision(a.precision, kernels);
  const DType dtype = activation_type(a.precision, kernels, comm);
  a.text.empty() ? translate_split(a, *model.task, kernels, dtype) : translate_text(a, *model.task, kernels, dtype);
  return kSuccess;
}

}  // namespace

Command add_generate(CLI::App& app) {
  auto a = std::make_shared<GenerateArguments>();
  app.add_option("file", a->file, "Packed model (.safetensors) or checkpoint (.h5) of task translation")->required();
  app.add_option("-d,--data", a->data, "Folder made by `prepare --pairs`: its dictionaries, tokenizer and splits")
      ->required();
  app.add_option("-t,--text", a->text, "Text to translate line by line; - is standard input");
  app.add_option("--split", a->split, "Prepared split to translate, and to compare with its translations: BLEU");
  app.add_option("--out", a->out, "With --split: file for the translations");
  add_config_options(app, a->config);
  app.add_option("--best", a->best, "Print so many translations of each line, with their scores")
      ->capture_default_str();
  add_choice(app, "--precision", a->precision,
             "fp32; tf32: fp32 with products in TF32 on GPUs; bf16: where the processor has instructions for it, "
             "else fp32; bf16_always: on any processor; fp16: GPUs only");
  app.add_flag("--json", a->json, "Print JSON: an object per translation, or one for a split");
  a->compute.add_to(app);
  app.footer(
      "Beam search as fairseq-generate does it. BLEU is that of sacreBLEU with tokenisation 13a, over the text as it "
      "is\n"
      "in the folder: what was tokenised before `prepare` stays so.");
  return [a](Communicator& comm) {
    return a->compute.run(comm, [&](const Kernels& k) { return run_generate(*a, k, comm); });
  };
}

}  // namespace qn::cli
