#include <spdlog/spdlog.h>

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/choice_option.h"
#include "cli/commands.h"
#include "cli/line_input.h"
#include "core/error.h"
#include "core/text.h"
#include "tasks/model_file.h"
#include "train/precision.h"

namespace qn::cli {
namespace {

struct PredictArguments {
  std::string file, data, text;
  std::vector<std::string> images;
  int64_t top = 5;
  Precision precision = Precision::fp32;
  HeldWeights held = HeldWeights::codes;
  ComputeOptions compute;
  bool json = false;
};

/// `image`: whose prediction it is, where it is of one.
void print(const Prediction& prediction, const std::string& image, bool json) {
  if (json) {
    nlohmann::ordered_json line = nlohmann::ordered_json::object();
    if (!image.empty()) line["image"] = image;
    line["label"] = prediction.label;
    line["probabilities"] = nlohmann::ordered_json::object();
    for (const auto& [label, p] : prediction.probabilities) line["probabilities"][label] = p;
    std::cout << line.dump() << '\n';
    return;
  }
  std::cout << prediction.label;
  for (const auto& [label, p] : prediction.probabilities) std::cout << fmt::format("\t{}={:.4f}", label, p);
  std::cout << '\n';
}

/// The likeliest classes only: there may be thousands.
Prediction shortened(Prediction prediction, int64_t top) {
  auto& all = prediction.probabilities;
  const auto kept = std::min(top, std::ssize(all));
  std::partial_sort(all.begin(), all.begin() + kept, all.end(),
                    [](const auto& x, const auto& y) { return x.second > y.second; });
  all.resize(static_cast<size_t>(kept));
  return prediction;
}

/// A file that is no picture is told and does not keep others from being classified. Returns the exit code.
int predict_images(const PredictArguments& a, const Kernels& kernels, DType dtype) {
  const ModelFile model = load_model_file(a.file, kernels, {}, a.held);
  set_product_precision(a.precision, kernels);
  size_t failed = 0;
  for (const std::string& path : a.images) try {
      const auto found = model.task->predict_images(std::span(&path, 1), kernels, dtype);
      if (!a.json) std::cout << path << '\t';
      print(shortened(found.front(), a.top), a.json ? path : std::string(), a.json);
      std::cout.flush();
    } catch (const UsageError&) {
      throw;  // of the model, not of this picture
    } catch (const Error& e) {
      if (a.images.size() == 1) throw;
      spdlog::error("{}", e.what());
      ++failed;
    }
  if (failed > 0) spdlog::error("{} of {} images could not be classified", failed, a.images.size());
  return failed > 0 ? kFailure : kSuccess;
}

int run_predict(const PredictArguments& a, const Kernels& kernels, Communicator& comm) {
  const DType dtype = activation_type(a.precision, kernels, comm);  // all ranks agree on it
  if (!comm.is_root()) return kSuccess;
  QN_CHECK_USAGE(a.images.empty() == !a.text.empty(),
                 "name image files behind the model's, or lines of text with --text: one of both");
  if (!a.images.empty()) return predict_images(a, kernels, dtype);
  LineInput input(a.text, "--text");
  const ModelFile model = load_model_file(a.file, kernels, {}, a.held);
  set_product_precision(a.precision, kernels);
  int64_t before = 0;
  constexpr size_t kMost = 1024;  // enough for batches of lines of equal length
  for (std::vector<std::string> lines; !(lines = input.next(kMost)).empty();) {
    for (const Prediction& prediction : model.task->predict(a.data, lines, kernels, dtype, before))
      print(prediction, {}, a.json);
    before += std::ssize(lines);
    std::cout.flush();
  }
  return kSuccess;
}

}  // namespace

Command add_predict(CLI::App& app) {
  auto a = std::make_shared<PredictArguments>();
  app.add_option("file", a->file,
                 "Packed model (.safetensors) or checkpoint (.h5) of task sentence_prediction or image_classification")
      ->required();
  app.add_option("images", a->images, "JPEG or PNG files, for models of images");
  app.add_option("--top", a->top, "So many classes of an image are printed, the likeliest first (default: 5)")
      ->check(CLI::PositiveNumber);
  app.add_option(
      "-d,--data", a->data,
      "Folder made by `prepare --table`, or of an import, for its dictionary and tokenizer: only for packed files "
      "that carry none, and for checkpoints whose data are elsewhere by now");
  app.add_option("-t,--text", a->text,
                 "Text with a sentence per line, or with two that a tabulator divides where the model takes pairs; - "
                 "is standard input. An imported classifier takes either, as the first line is");
  add_choice(app, "--precision", a->precision,
             "fp32; tf32: fp32 with products in TF32 on GPUs; bf16: where the processor has instructions for it, "
             "else fp32; bf16_always: on any processor; fp16: GPUs only");
  app.add_flag("--json", a->json, "Print a JSON object per line");
  add_held_weights(app, a->held);
  a->compute.add_to(app);
  app.footer(
      "Prints a line per line: the most likely label, then every label with its probability. Of a regression: the\n"
      "number. Inputs that are too long for the model lose what is behind. Of an image: its file's name, the most\n"
      "likely class, then the likeliest ones with their probabilities. Files that cannot be read as images are named, "
      "the\n"
      "others classified; the exit status is then 1.");
  return [a](Communicator& comm) {
    return a->compute.run(comm, [&](const Kernels& k) { return run_predict(*a, k, comm); });
  };
}

}  // namespace qn::cli
