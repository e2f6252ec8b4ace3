#include "tasks/run_config.h"

#include <algorithm>

namespace qn {

void DataConfig::visit(ConfigVisitor& v) {
  v.field("path", path,
          "folder made by `quantnoise prepare` or fairseq-preprocess (dict.txt, train.bin, train.idx, ...)");
  v.choice("break_mode", break_mode,
           "where blocks may end: anywhere, at sentences, at sentences and documents, one sentence each");
  v.field("tokens_per_sample", tokens_per_sample, "tokens per block");
  v.field("max_tokens", max_tokens, "tokens per micro-batch, padding included (0: no limit)");
  v.field("max_sentences", max_sentences, "blocks per micro-batch (0: no limit)");
  v.field("required_multiple", required_multiple, "larger micro-batches hold a multiple of this many blocks");
  v.field("valid", valid, "split that validation uses");
  v.field("skip_invalid_size_valid", skip_invalid_size_valid,
          "leave over-long validation blocks out instead of stopping");
}

void DataConfig::validate(const ConfigChecker& c) const {
  c.check(tokens_per_sample >= 2 && tokens_per_sample <= kMostPositions, "tokens_per_sample",
          "must be in 2 to {}, got {}", kMostPositions, tokens_per_sample);
  c.check(max_tokens >= 0, "max_tokens", "must not be negative (0: no limit), got {}", max_tokens);
  c.check(max_sentences >= 0, "max_sentences", "must not be negative (0: no limit), got {}", max_sentences);
  c.check(max_tokens > 0 || max_sentences > 0, "max_tokens", "or max_sentences must limit a micro-batch");
  c.check(max_tokens <= 0 || break_mode == BreakMode::eos || max_tokens >= tokens_per_sample, "max_tokens",
          "= {} is smaller than one block of tokens_per_sample = {}", max_tokens, tokens_per_sample);
  c.check(required_multiple >= 1, "required_multiple", "must be at least 1, got {}", required_multiple);
}

void EvalConfig::visit(ConfigVisitor& v) {
  v.field("context_window", context_window, "Tokens of context that every block gets at least");
  v.field("tokens_per_sample", tokens_per_sample,
          "Longest input, context included (default: the length of training blocks)");
  v.choice("break_mode", break_mode, {BreakMode::none, BreakMode::complete, BreakMode::eos},
           "Where inputs may end: anywhere, at sentences, one sentence each");
  v.field("max_tokens", max_tokens, "Tokens per batch");
  v.field("bpe_marker", bpe_marker,
          "Tokens ending in this belong to the next one, e.g. \"@@\": perplexity is then per word");
  v.field("teacher", teacher,
          "A model file that this one is compared with: vectors of models of task sentence_embedding, the most likely "
          "classes of those of task image_classification (\"agreement\")");
}

void RunConfig::validate(const ConfigChecker& c) const {
  c.check(seed >= 0, "seed", "must not be negative, got {}", seed);
  check_task_fits(c, model, task);
}

namespace {

/// The keys of a section that depend on its type.
template <class Config>
struct TypedSection {
  const char* section;
  Config config;
  void visit(ConfigVisitor& v) {
    v.section(section, config, fmt::format("where {}.type is {}", section, name_of(config.type)));
  }
};

constexpr const char* kImageData = "of image networks";
struct ImageSection {
  ImageDataConfig images;
  void visit(ConfigVisitor& v) { v.section("data", images, kImageData); }
};

template <class Config>
std::string described(const char* section, const Config& config) {
  TypedSection<Config> typed{section, config};
  return '\n' + describe_config_walk([&](ConfigVisitor& v) { v.visit_body(typed); });
}

}  // namespace

std::string describe_run_config() {
  std::string text = describe_config<RunConfig>();
  const RunConfig defaults;
  std::vector<TaskType> told{defaults.task.type};
  for (const ModelType model : all_values<ModelType>()) {
    if (model != defaults.model.type) text += described("model", ModelConfig(model));
    if (is_image_model(model) && text.find(kImageData) == std::string::npos)
      text += '\n' + describe_config_walk([&](ConfigVisitor& v) {
                ImageSection images;
                v.visit_body(images);
              });
    for (const TaskType task : tasks_of(model)) {
      if (std::find(told.begin(), told.end(), task) != told.end()) continue;
      told.push_back(task);
      text += described("task", TaskConfig(task, model));
    }
  }
  return text;
}

void RunConfig::visit(ConfigVisitor& v) {
  v.field("seed", seed, "of everything random: initial weights, data order, dropout, noise, k-means");
  visit_model_and_task(v, model, task);
  if (is_image_model(model.type))
    v.section("data", images, "what it is trained on");
  else
    v.section("data", data, "what it is trained on");
  v.section("quant_noise", quant_noise, "noise on weights during training");
  v.section("optimizer", optimizer, "the update rule");
  v.section("schedule", schedule, "the learning rate");
  v.section("train", train, "how long, and how often to validate");
  v.section("checkpoint", checkpoint, "what is saved where");
  v.section("comm", comm, "communication between ranks");
  v.section("ipq", ipq, "iterative product quantization (quantize)");
}

}  // namespace qn
