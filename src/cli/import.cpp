#include <spdlog/spdlog.h>

#include "cli/choice_option.h"
#include "cli/commands.h"
#include "core/text.h"
#include "tasks/image_import.h"

namespace qn::cli {
namespace {

struct ImportArguments {
  std::string source, out, classes;
  std::vector<std::string> overrides;
  HfKind kind = HfKind::gpt2;
};

ImportSummary import_model(const ImportArguments& a) {
  if (a.kind == HfKind::efficientnet) return import_image_model(a.source, a.classes, a.overrides, a.out);
  QN_CHECK_USAGE(a.overrides.empty(), "--set is for models of images");
  return import_hf(a.source, a.kind, a.out, a.classes);
}

void run_import(const ImportArguments& a) {
  const ImportSummary summary = import_model(a);
  spdlog::info("{}: {} parameters, {} -> {}/{}", summary.task, group_digits(summary.parameters), summary.details, a.out,
               kImportedCheckpoint);
  if (summary.tokenizer) {
    if (!*summary.tokenizer)
      spdlog::warn(
          "there are no tokenizer's files beside the model (vocab.json and merges.txt, or vocab.txt): ids are taken as "
          "they are, and 0 to 3 are <s>, <pad>, </s> and <unk>");
    const bool classifies = summary.task == name_of(TaskType::sentence_prediction);
    spdlog::info("text for it: quantnoise prepare{}{} --dict {}/dict.txt{} ...", classifies ? " --table" : "",
                 *summary.tokenizer ? fmt::format(" --tokenizer {}/tokenizer", a.out) : "", a.out,
                 summary.classes > 0 ? fmt::format(" --label-dict {}/{}", a.out, kClassNames)
                 : classifies        ? " --regression"
                                     : "");
    if (classifies) spdlog::info("to ask it: quantnoise predict {}/{} --text FILE", a.out, kImportedCheckpoint);
  }
  spdlog::info("to go on: quantnoise train -c {}/{} --set data.path=FOLDER", a.out, kImportedConfig);
}

}  // namespace

Command add_import(CLI::App& app) {
  auto a = std::make_shared<ImportArguments>();
  app.add_option(
         "model", a->source,
         "Folder of a Hugging Face model (config.json, model.safetensors or several files with an index, and the "
         "tokenizer's vocab.json and merges.txt or vocab.txt), or its safetensors file or index. Of images: a "
         "safetensors file of an EfficientNet in the names of timm, torchvision or efficientnet-pytorch")
      ->required();
  add_choice(app, "--as", a->kind, "What it is")->required();
  app.add_option("-o,--out", a->out,
                 "Folder to write the checkpoint, a configuration, dict.txt, tokenizer/ and, of a classifier, "
                 "label/dict.txt to")
      ->required();
  app.add_option(
      "--classes", a->classes,
      "Classifiers: text with a class's name per line, in the model's order (default: those of config.json; of "
      "images numbers). Tables call classes by one word each");
  app.add_option("--set", a->overrides,
                 "Models of images: a key of model or data in place of what the names' package has, for instance "
                 "model.padding=symmetric");
  app.footer(
      "The checkpoint is evaluated, quantized (--from) and trained further (checkpoint.init_from) like one of train.\n"
      "BERT and RoBERTa become masked language models, classifiers of sentences or, without a head, models that make\n"
      "vectors of sentences (task sentence_embedding), by the tensors in the file.\n"
      "Example: quantnoise import gpt2 --as gpt2 -o runs/gpt2");
  return [a](Communicator& comm) {
    if (comm.is_root()) run_import(*a);
    return kSuccess;
  };
}

}  // namespace qn::cli
