#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/choice_option.h"
#include "cli/commands.h"
#include "cli/line_input.h"
#include "core/text.h"
#include "tasks/model_file.h"
#include "train/precision.h"

namespace qn::cli {
namespace {

struct PredictArguments {
  std::string file, data, text;
  Precision precision = Precision::fp32;
  ComputeOptions compute;
  bool json = false;
};

void print(const Prediction& prediction, bool json) {
  if (json) {
    nlohmann::ordered_json line{{"label", prediction.label}, {"probabilities", nlohmann::ordered_json::object()}};
    for (const auto& [label, p] : prediction.probabilities) line["probabilities"][label] = p;
    std::cout << line.dump() << '\n';
    return;
  }
  std::cout << prediction.label;
  for (const auto& [label, p] : prediction.probabilities) std::cout << fmt::format("\t{}={:.4f}", label, p);
  std::cout << '\n';
}

int run_predict(const PredictArguments& a, const Kernels& kernels, Communicator& comm) {
  if (!comm.is_root()) return kSuccess;
  LineInput input(a.text, "--text");
  const ModelFile model = load_model_file(a.file, kernels);
  set_product_precision(a.precision, kernels);
  int64_t before = 0;
  constexpr size_t kMost = 1024;  // enough for batches of lines of equal length
  for (std::vector<std::string> lines; !(lines = input.next(kMost)).empty();) {
    for (const Prediction& prediction :
         model.task->predict(a.data, lines, kernels, activation_type(a.precision, kernels, comm), before))
      print(prediction, a.json);
    before += std::ssize(lines);
    std::cout.flush();
  }
  return kSuccess;
}

}  // namespace

Command add_predict(CLI::App& app) {
  auto a = std::make_shared<PredictArguments>();
  app.add_option("file", a->file, "Packed model (.safetensors) or checkpoint (.h5) of task sentence_prediction")
      ->required();
  app.add_option("-d,--data", a->data,
                 "Folder made by `prepare --table`, for its dictionary and tokenizer: only for packed files that carry "
                 "none, and for checkpoints whose data are elsewhere by now");
  app.add_option("-t,--text", a->text,
                 "Text with a sentence per line, or with two that a tabulator divides where the model takes pairs; - "
                 "is standard input")
      ->required();
  add_choice(app, "--precision", a->precision,
             "fp32; tf32: fp32 with products in TF32 on GPUs; bf16: where the processor has instructions for it, "
             "else fp32; bf16_always: on any processor; fp16: GPUs only");
  app.add_flag("--json", a->json, "Print a JSON object per line");
  a->compute.add_to(app);
  app.footer(
      "Prints a line per line: the most likely label, then every label with its probability. Of a regression: the\n"
      "number. Inputs that are too long for the model lose what is behind.");
  return [a](Communicator& comm) {
    return a->compute.run(comm, [&](const Kernels& k) { return run_predict(*a, k, comm); });
  };
}

}  // namespace qn::cli
