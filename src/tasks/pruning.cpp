#include "tasks/pruning.h"

#include <nlohmann/json.hpp>

#include "compress/packed_model.h"
#include "compress/packed_origin.h"
#include "compress/packed_tensors.h"
#include "core/strict_json.h"
#include "tasks/run.h"
#include "tasks/stored_config.h"

namespace qn {
namespace {

/// `text` with another value in the first line `key: value` behind `from` that is indented so far.
void set_line(std::string& text, const std::string& line_start, int64_t value, size_t from) {
  const size_t begin = text.find('\n' + line_start, from);
  QN_CHECK(begin != std::string::npos, "the model's configuration has no line '{}...': it is damaged", line_start);
  const size_t number = begin + 1 + line_start.size();
  text.replace(number, text.find('\n', number) - number, std::to_string(value));
}

QuantizationPlan prune_plan(QuantizationPlan plan, const LayerSelection& selection) {
  std::vector<WeightPlan> weights;
  for (WeightPlan& weight : plan.weights)
    if (const auto name = selection.renamed(weight.name)) {
      weight.name = *name;
      weights.push_back(std::move(weight));
    }
  plan.weights = std::move(weights);
  std::vector<ActivationPlan> activations;
  for (const ActivationPlan& activation : plan.activations)
    if (const auto name = selection.renamed(activation.name)) activations.emplace_back(activation).name = *name;
  plan.activations = std::move(activations);
  return plan;
}

template <typename Value>
void prune_entries(std::map<std::string, Value>& entries, const LayerSelection& selection) {
  std::map<std::string, Value> kept;
  for (auto& [name, value] : entries) {
    if (name.starts_with("optimizer/") || name.starts_with("update/") || name.starts_with("ipq/kmeans")) continue;
    if (const auto renamed = selection.renamed(name)) kept[*renamed] = std::move(value);
  }
  entries = std::move(kept);
}

/// The table of quantized weights in a packed file's metadata.
std::string prune_table(const std::string& text, const LayerSelection& selection, const std::string& where) {
  using Json = nlohmann::json;
  try {
    Json table = parse_strict_json<Json>(text, where), kept = Json::object();
    for (const auto& [name, entry] : table.at("weights").items())
      if (const auto renamed = selection.renamed(name)) kept[*renamed] = entry;
    table["weights"] = std::move(kept);
    return table.dump();
  } catch (const Json::exception& error) {
    fail("{} does not describe quantized weights ({}): this is no intact packed model", where, json_problem(error));
  }
}

}  // namespace

void check_architecture(const std::string& trained, const std::string& configured) {
  const std::vector<std::string> changes = diff_config(trained, configured);
  QN_CHECK(changes.empty(),
           "the checkpoint was trained as another model; what it was trained with -> what the configuration says: {}. "
           "Its weights are of no use to another model: set these keys as it was trained",
           fmt::join(changes, "; "));
}

ModelSection model_of_checkpoint(const std::string& config) {
  return read_stored<ModelSection>(stored_sections(config, "the checkpoint's configuration", {{"model"}}));
}

void prune_config(RunConfig& config) {
  const std::string& text = config.checkpoint.layers_to_keep;
  ModelConfig& model = config.model;
  if (text.empty() || LayerSelection::count(text) == model.layers) return;
  model.layers = std::ssize(LayerSelection(text, model.layers, model.share_layers).kept());
}

void prune_checkpoint(StateDict& state, const std::string& layers_to_keep) {
  std::string& config = state.texts.at("config");
  const ModelConfig model = model_of_checkpoint(config).model;
  const LayerSelection selection(layers_to_keep, model.layers, model.share_layers);
  const size_t section = ('\n' + config).find("\nmodel:\n");
  QN_CHECK(section != std::string::npos, "the checkpoint's configuration has no section 'model'");
  set_line(config, "  layers: ", std::ssize(selection.kept()), section);
  if (const auto plan = state.texts.find("plan"); plan != state.texts.end())
    plan->second = plan_to_text(prune_plan(plan_from_text(plan->second, "the checkpoint's plan"), selection));
  prune_entries(state.tensors, selection);
  prune_entries(state.ints, selection);
  prune_entries(state.floats, selection);
}

void prune_packed(SafetensorsReader& file, const std::string& layers_to_keep) {
  QN_CHECK_USAGE(!file.metadata().contains(kOriginKey),
                 "{} holds another program's weights: which of them are layers is not known here", file.path());
  std::string text = '\n' + file.metadata_at("model");
  const auto model = read_stored<ModelConfig>(config_tree_from_text(text, file.path() + " (metadata 'model')"));
  const LayerSelection selection(layers_to_keep, model.layers, model.share_layers);
  set_line(text, "layers: ", std::ssize(selection.kept()), 0);
  file.set_metadata("model", text.substr(1));
  file.set_metadata("parameters", std::to_string(task_of_packed(file, file.path())->module().parameters().elements()));
  const auto rewrite = [&](const char* key, const std::function<std::string(const std::string&, std::string)>& f) {
    const auto entry = file.metadata().find(key);
    if (entry != file.metadata().end())
      file.set_metadata(key, f(entry->second, fmt::format("'{}', metadata '{}'", file.path(), key)));
  };
  rewrite("plan", [&](const std::string& plan, const std::string& where) {
    return plan_to_text(prune_plan(plan_from_text(plan, where), selection));
  });
  rewrite(kQuantizedKey,
          [&](const std::string& table, const std::string& where) { return prune_table(table, selection, where); });
  file.rename([&](const std::string& name) { return selection.renamed(name); });
}

SafetensorsWriter packed_copy(const SafetensorsReader& file) {
  SafetensorsWriter copy;
  for (const StoredTensor& t : file.tensors()) copy.add(t.name, t.type, t.shape, t.bytes);
  for (const auto& [key, value] : file.metadata())
    if (key != kChecksums) copy.set_metadata(key, value);
  if (file.has_checksums()) copy.set_checksummed();
  return copy;
}

}  // namespace qn
