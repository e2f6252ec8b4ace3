#include "compress/explain.h"

#include <filesystem>
#include <iostream>

#include "cli/commands.h"
#include "cli/usage.h"
#include "compress/foreign_weights.h"
#include "tasks/model_file.h"
#include "tasks/run.h"
#include "train/checkpoint_folder.h"

namespace qn::cli {
namespace {

namespace fs = std::filesystem;

struct ExplainArguments {
  std::string subject;
  std::vector<std::string> overrides;
  int64_t vocabulary = 0;
  bool json = false;
};

struct Explained {
  QuantizationPlan plan;
  std::unique_ptr<RunTask> task;  ///< that the model is of, if it is one of this program
  std::unique_ptr<Module> foreign;

  const Module& model() const { return task != nullptr ? task->module() : *foreign; }
};

/// What `quantize` with this configuration will do.
Explained explain_config(const ExplainArguments& a) {
  ConfigOptions options;
  options.file = a.subject;
  options.overrides = a.overrides;
  const RunConfig config = options.read();
  auto task = preview_task(config, a.vocabulary);
  QuantizationPlan plan = make_run_plan(task->module(), config.quant_noise, &config.ipq);
  return {.plan = std::move(plan), .task = std::move(task), .foreign = nullptr};
}

/// What a model file has gone through, and what is to come.
Explained explain_model_file(const fs::path& path) {
  if (kind_of_model_file(path) == ModelFileKind::packed) {
    const SafetensorsReader packed(path);
    if (packed.metadata().contains(kOriginKey))
      return {.plan = plan_from_text(packed.metadata_at("plan"), path.string()),
              .task = nullptr,
              .foreign = load_foreign(packed, path.string())};
  }
  ModelFile file = load_model_file(path);
  QN_CHECK(!file.plan.empty(),
           "{} holds no plan: it has version 1 of the format; `quantnoise inspect` shows its "
           "tensors",
           path.string());
  return {.plan = plan_from_text(file.plan, path.string()), .task = std::move(file.task), .foreign = nullptr};
}

Explained explain_subject(const ExplainArguments& a) {
  const fs::path path(a.subject);
  if (fs::is_directory(path)) {
    const auto newest = newest_checkpoint(path);
    QN_CHECK(newest, "there is no checkpoint of a run in {}: name what checkpoint.dir of a run names", a.subject);
    return explain_model_file(newest->path);
  }
  if (path.extension() == ".yaml" || path.extension() == ".yml") return explain_config(a);
  return explain_model_file(path);
}

}  // namespace

Command add_explain(CLI::App& app) {
  auto a = std::make_shared<ExplainArguments>();
  app.add_option("subject", a->subject,
                 "A run's folder (checkpoint.dir; its newest checkpoint), a configuration (.yaml), a checkpoint (.h5) "
                 "or a packed model (.safetensors)")
      ->required();
  app.add_option("-s,--set", a->overrides, "Override one key of a configuration (repeatable)")
      ->take_all()
      ->allow_extra_args(false);
  app.add_option("--vocab", a->vocabulary, "Dictionary size for a configuration without data.path")
      ->check(whole_number(1));
  app.add_flag("--json", a->json, "Print one JSON object");
  app.footer(
      "For every weight: its noise in training, the stage and quantizer that compress it, bits per weight and\n"
      "bytes in the packed file, and what it is by now. Then the activations that are quantized.");
  return [a](Communicator& comm) {
    if (!comm.is_root()) return kSuccess;
    const Explained explained = explain_subject(*a);
    if (a->json)
      std::cout << explain_json(explained.plan, explained.model()) << std::endl;
    else
      std::cout << explain(explained.plan, explained.model());
    return kSuccess;
  };
}

}  // namespace qn::cli
