#include "compress/explain.h"

#include <filesystem>
#include <iostream>

#include "cli/commands.h"
#include "compress/foreign_weights.h"
#include "data/dictionary.h"
#include "tasks/model_file.h"

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
  std::unique_ptr<Module> model;
};

int64_t vocabulary_of(const ExplainArguments& a, const RunConfig& config) {
  if (a.vocabulary > 0) return a.vocabulary;
  QN_CHECK(!config.data.path.empty(),
           "a configuration tells shapes together with a vocabulary: --vocab N, or "
           "data.path with a dict.txt");
  return Dictionary::load(fs::path(config.data.path) / "dict.txt").size();
}

/// What `quantize` with this configuration will do.
Explained explain_config(const ExplainArguments& a) {
  const auto config = read_config<RunConfig>(load_config_tree(a.subject, a.overrides));
  auto model = make_language_model(config.model, vocabulary_of(a, config), config.data.tokens_per_sample);
  QuantizationPlan plan = make_run_plan(*model, config.quant_noise, &config.ipq);
  return {std::move(plan), std::move(model)};
}

/// What a model file has gone through, and what is to come.
Explained explain_model_file(const fs::path& path) {
  if (kind_of_model_file(path) == ModelFileKind::packed) {
    const SafetensorsReader packed(path);
    if (packed.metadata().contains(kOriginKey))
      return {plan_from_text(packed.metadata_at("plan"), path.string()), load_foreign(packed, path.string())};
  }
  ModelFile file = load_model_file(path);
  QN_CHECK(!file.info.plan.empty(),
           "{} holds no plan: it has version 1 of the format; `quantnoise inspect` shows its "
           "tensors",
           path.string());
  return {plan_from_text(file.info.plan, path.string()), std::move(file.model)};
}

Explained explain_subject(const ExplainArguments& a) {
  const fs::path path(a.subject);
  if (fs::is_directory(path)) {
    const fs::path newest = path / "checkpoint_last.h5";
    QN_CHECK(fs::exists(newest), "there is no checkpoint_last.h5 in {}: name what checkpoint.dir of a run names",
             a.subject);
    return explain_model_file(newest);
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
  app.add_option("--vocab", a->vocabulary, "Dictionary size for a configuration without data.path");
  app.add_flag("--json", a->json, "Print one JSON object");
  app.footer(
      "For every weight: its noise in training, the stage and quantizer that compress it, bits per weight and\n"
      "bytes in the packed file, and what it is by now. Then the activations that are quantized.");
  return [a](Communicator& comm) {
    if (!comm.is_root()) return kSuccess;
    const Explained explained = explain_subject(*a);
    if (a->json)
      std::cout << explain_json(explained.plan, *explained.model) << std::endl;
    else
      std::cout << explain(explained.plan, *explained.model);
    return kSuccess;
  };
}

}  // namespace qn::cli
