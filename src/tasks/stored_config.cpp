#include "tasks/stored_config.h"

#include <algorithm>

#include "core/config_node.h"
#include "tasks/pruning.h"

namespace qn {
namespace {

struct StoredData {
  std::string path;
  int64_t tokens_per_sample = DataConfig{}.tokens_per_sample;
  void visit(ConfigVisitor& v) {
    v.field("path", path, "");
    v.field("tokens_per_sample", tokens_per_sample, "");
  }
  void validate(const ConfigChecker& c) const {
    c.check(tokens_per_sample >= 2 && tokens_per_sample <= kMostPositions, "tokens_per_sample",
            "must be in 2 to {}, got {}", kMostPositions, tokens_per_sample);
  }
};

struct StoredImages {
  std::string path;
  ImageTransform transform;
  void visit(ConfigVisitor& v) {
    v.field("path", path, "");
    v.section("transform", transform, "");
  }
};

struct StoredIpq {
  CentroidGradient centroid_gradient = IpqConfig{}.centroid_gradient;
  void visit(ConfigVisitor& v) { v.choice("centroid_gradient", centroid_gradient, ""); }
};

struct StoredRun {
  ModelConfig model;
  TaskConfig task;
  StoredData data;
  StoredImages images;
  StoredIpq ipq;
  void visit(ConfigVisitor& v) {
    visit_model_and_task(v, model, task);
    if (is_image_model(model.type))
      v.section("data", images, "");
    else
      v.section("data", data, "");
    v.section("ipq", ipq, "");
  }
};

struct StoredPlans {
  NoiseConfig quant_noise;
  QuantizeConfig ipq;
  void visit(ConfigVisitor& v) {
    v.section("quant_noise", quant_noise, "");
    v.section("ipq", ipq, "");
  }
};

}  // namespace

ConfigTree stored_sections(const std::string& text, const std::string& where,
                           const std::vector<StoredSection>& sections) {
  const ConfigTree tree = config_tree_from_text(text, where);
  ConfigTreeData data;
  data.root = ConfigNode(ConfigNode::Kind::map);
  for (const StoredSection& section : sections) {
    const ConfigNode* found = tree.data().root.find(section.name);
    if (found == nullptr) continue;
    ConfigNode& kept = data.root.children.emplace_back(*found);
    if (section.keys.empty()) continue;
    std::erase_if(kept.children, [&](const ConfigNode& key) {
      return std::find(section.keys.begin(), section.keys.end(), key.key) == section.keys.end();
    });
  }
  return ConfigTree(std::make_shared<const ConfigTreeData>(std::move(data)));
}

RunConfig read_stored_run(const std::string& text, const std::string& where, bool plans) {
  const bool images = is_image_model(read_stored<ModelSection>(stored_sections(text, where, {{"model"}})).model.type);
  const auto read =
      read_stored<StoredRun>(stored_sections(text, where,
                                             {{"model"},
                                              {"task"},
                                              {"data", {"path", images ? "transform" : "tokens_per_sample"}},
                                              {"ipq", {"centroid_gradient"}}}));
  RunConfig config;
  config.model = read.model;
  config.task = read.task;
  config.data.path = read.data.path;
  config.data.tokens_per_sample = read.data.tokens_per_sample;
  config.images.path = read.images.path;
  config.images.transform = read.images.transform;
  if (plans) {
    const auto planned = read_stored<StoredPlans>(stored_sections(text, where, {{"quant_noise"}, {"ipq"}}));
    config.quant_noise = planned.quant_noise;
    config.ipq = planned.ipq;
  }
  config.ipq.centroid_gradient = read.ipq.centroid_gradient;
  return config;
}

ModelConfig packed_model_config(const SafetensorsReader& file, const std::string& path) {
  return read_stored<ModelConfig>(config_tree_from_text(file.metadata_at("model"), path + " (metadata 'model')"));
}

TaskConfig packed_task_config(const SafetensorsReader& file, const std::string& path) {
  const auto stored = file.metadata().find("task");
  if (stored == file.metadata().end()) {
    const ModelType model = packed_model_config(file, path).type;
    return TaskConfig(default_task(model), model);
  }
  return read_stored<TaskConfig>(config_tree_from_text(stored->second, path + " (metadata 'task')"));
}

}  // namespace qn
