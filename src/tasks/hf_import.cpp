#include <spdlog/spdlog.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "compress/run_plan.h"
#include "core/file_kind.h"
#include "core/folder_lock.h"
#include "core/strict_json.h"
#include "core/text.h"
#include "data/prepared_folder.h"
#include "data/tokenizer.h"
#include "tasks/classes.h"
#include "tasks/hf_folder.h"
#include "tasks/hf_names.h"
#include "tasks/run.h"
#include "train/checkpoint_file.h"
#include "train/run_state.h"

namespace qn {
namespace {

namespace fs = std::filesystem;
using SortedJson = nlohmann::json;

/// config.json, with messages that name file and key.
class HfConfig {
 public:
  explicit HfConfig(const fs::path& path) : name_(path.string()) {
    QN_CHECK_USAGE(fs::exists(path), "{} is missing: it tells the sizes of a Hugging Face model", name_);
    json_ = parse_strict_json<SortedJson>(read_text_file(path), name_);
    QN_CHECK(json_.is_object(), "{} is no object of options", name_);
  }

  void check_type(const std::string& type) const {
    const std::string found = text("model_type", "none");
    QN_CHECK_USAGE(found == type, "{} is of a model of type '{}', not '{}'", name_, found, type);
  }
  int64_t integer(const char* key, int64_t least, int64_t most) const {
    QN_CHECK(json_.contains(key), "{} does not say {}", name_, key);
    return json_integer(json_[key], fmt::format("{}: {}", name_, key), least, most);
  }
  int64_t integer_or(const char* key, int64_t otherwise, int64_t most) const {
    return absent(key) ? otherwise : integer(key, 1, most);
  }
  double number(const char* key, double otherwise) const {
    if (absent(key)) return otherwise;
    QN_CHECK(json_[key].is_number(), "{}: {} is {}, a number is due", name_, key, json_[key].dump());
    return json_[key].get<double>();
  }
  std::string text(const char* key, const std::string& otherwise) const {
    if (absent(key)) return otherwise;
    QN_CHECK(json_[key].is_string(), "{}: {} is {}, a text is due", name_, key, json_[key].dump());
    return json_[key].get<std::string>();
  }
  bool flag(const char* key, bool otherwise) const {
    if (absent(key)) return otherwise;
    QN_CHECK(json_[key].is_boolean(), "{}: {} is {}, true or false is due", name_, key, json_[key].dump());
    return json_[key].get<bool>();
  }
  /// For what the models here do in one way only.
  void require(const char* key, bool value) const {
    QN_CHECK(flag(key, value) == value, "{}: {} is {}: a model like that is not possible here", name_, key, !value);
  }
  double dropout(const char* key) const {
    const double rate = number(key, 0.1);
    QN_CHECK(rate >= 0.0 && rate < 1.0, "{}: {} is {}, a rate below 1 is due", name_, key, rate);
    return rate;
  }
  Activation activation(const char* key, const char* otherwise) const {
    const std::string kind = text(key, otherwise);
    if (kind == "gelu_new" || kind == "gelu_pytorch_tanh") return Activation::gelu_tanh;
    QN_CHECK(kind == "gelu" || kind == "relu",
             "{}: {} is '{}'; gelu_new, gelu_pytorch_tanh, gelu and relu are possible", name_, key, kind);
    return kind == "gelu" ? Activation::gelu : Activation::relu;
  }
  double eps(const char* key, double otherwise) const {
    const double value = number(key, otherwise);
    QN_CHECK(value > 0.0 && value < 1.0, "{}: {} is {}, a small number is due", name_, key, value);
    return value;
  }
  void check_eps(const char* key, double otherwise) const {
    const double eps = number(key, otherwise);
    QN_CHECK(std::abs(eps - 1e-5) < 1e-12, "{}: {} is {}, 1e-05 is possible here", name_, key, eps);
  }
  void check_heads(const ModelConfig& m) const {
    QN_CHECK(m.embed_dim % 2 == 0 && m.embed_dim % m.heads == 0,
             "{}: the width {} must be even, and {} heads divide it", name_, m.embed_dim, m.heads);
  }
  /// Names of classes; none where there is one output: a score.
  std::vector<std::string> labels() const {
    if (!json_.contains("id2label")) return {"LABEL_0", "LABEL_1"};
    const SortedJson& names = json_["id2label"];
    const std::string where = name_ + ": id2label";
    QN_CHECK(names.is_object() && !names.empty(), "{} is {}: names of the classes 0, 1, ... are due", where,
             names.dump());
    std::vector<std::string> labels;
    for (size_t i = 0; i < names.size() && names.size() > 1; ++i) {
      const auto found = names.find(std::to_string(i));
      QN_CHECK(found != names.end() && found->is_string(), "{} is {}: names of the classes 0, 1, ... are due", where,
               names.dump());
      labels.push_back(found->get<std::string>());
    }
    return labels;
  }
  /// Models of one kind have heads of others in tensors of the same names: what is no classifier of whole inputs with
  /// one class each is refused.
  void check_head() const {
    if (!absent("architectures"))
      for (const SortedJson& architecture : json_["architectures"]) {
        const std::string kind = architecture.is_string() ? architecture.get<std::string>() : architecture.dump();
        for (const char* other : {"TokenClassification", "QuestionAnswering", "MultipleChoice", "NextSentence"})
          QN_CHECK(kind.find(other) == std::string::npos,
                   "{}: architectures has {}: possible here are masked language models, classifiers of sentences (or "
                   "pairs) and encoders alone",
                   name_, kind);
      }
    const std::string problem = text("problem_type", "");
    QN_CHECK(problem != "multi_label_classification",
             "{}: problem_type is {}: inputs with several classes at once are not possible here", name_, problem);
    QN_CHECK(problem != "regression" || !json_.contains("id2label") || json_["id2label"].size() == 1,
             "{}: problem_type is {} of {} numbers: one number is possible here", name_, problem,
             json_["id2label"].size());
  }
  /// Ids that the program has in one place only, where there is no tokenizer to look them up in.
  void check_id(const char* key, int64_t due) const {
    if (absent(key)) return;
    QN_CHECK(json_[key] == due, "{}: {} is {}, a model whose {} is {} is due: ids and positions hang on it", name_, key,
             json_[key].dump(), key, due);
  }
  /// The end mark that config.json names is not the tokenizer's.
  void warn_of_other_end(const HfVocabulary& vocabulary) const {
    if (vocabulary.known && !absent("eos_token_id") && json_["eos_token_id"] != vocabulary.theirs[kEosId])
      spdlog::warn(
          "{}: eos_token_id is {}, but the token that ends texts here is number {} (<|endoftext|>, or where the "
          "tokenizer has none a byte of no text): texts may not end where the model means them to",
          name_, json_["eos_token_id"].dump(), vocabulary.theirs[kEosId]);
  }
  const std::string& name() const { return name_; }

 private:
  bool absent(const char* key) const { return !json_.contains(key) || json_[key].is_null(); }

  std::string name_;
  SortedJson json_;
};

/// What a config.json comes to.
struct Blueprint {
  RunConfig run;
  int64_t vocabulary = 0;
  std::vector<std::string> labels = {};  ///< of a classification
};

Blueprint read_gpt2(const HfConfig& config, const TensorFiles&) {
  config.check_type("gpt2");
  config.require("scale_attn_weights", true);
  config.require("scale_attn_by_inverse_layer_idx", false);
  config.require("add_cross_attention", false);
  config.check_eps("layer_norm_epsilon", 1e-5);
  Blueprint blueprint;
  ModelConfig& m = blueprint.run.model;
  m.layers = config.integer("n_layer", 1, kMostLayers);
  m.embed_dim = config.integer("n_embd", 4, kMostWidth);
  m.heads = config.integer("n_head", 1, kMostWidth);
  m.ffn_dim = config.integer_or("n_inner", 4 * m.embed_dim, kMostWidth);
  m.max_positions = config.integer("n_positions", 2, kMostPositions);
  m.dropout = config.dropout("resid_pdrop");
  m.attention_dropout = config.dropout("attn_pdrop");
  m.activation = config.activation("activation_function", "gelu_new");
  m.prenorm = m.final_norm = m.learned_positions = true;
  m.scale_embedding = false;
  m.share_input_output = config.flag("tie_word_embeddings", true);
  config.check_heads(m);
  blueprint.run.data.tokens_per_sample = m.max_positions;
  blueprint.vocabulary = config.integer("vocab_size", kSpecialCount + 1, INT32_MAX);
  return blueprint;
}

/// How a model of sentence-transformers makes its vectors, and of how many tokens; defaults where it says nothing.
void read_embedding(const fs::path& folder, RunConfig& run) {
  if (const fs::path path = folder / "modules.json"; fs::exists(path)) {
    const SortedJson modules = parse_strict_json<SortedJson>(read_text_file(path), path.string());
    for (const SortedJson& module : modules) {
      const std::string type = module.is_object() && module.contains("type") && module["type"].is_string()
                                   ? module["type"].get<std::string>()
                                   : module.dump();
      QN_CHECK(type.ends_with(".Transformer") || type.ends_with(".Pooling") || type.ends_with(".Normalize"),
               "{}: a model with a part {} is not possible here (Transformer, Pooling and Normalize are)",
               path.string(), type);
    }
  }
  if (const fs::path path = folder / "1_Pooling" / "config.json"; fs::exists(path)) {
    const HfConfig pooling(path);
    const bool mean = pooling.flag("pooling_mode_mean_tokens", false),
               cls = pooling.flag("pooling_mode_cls_token", false);
    QN_CHECK(mean != cls, "{}: vectors of the mean of all tokens, or of [CLS], are possible here", path.string());
    pooling.require("pooling_mode_max_tokens", false);
    pooling.require("pooling_mode_mean_sqrt_len_tokens", false);
    pooling.require("pooling_mode_weightedmean_tokens", false);
    pooling.require("pooling_mode_lasttoken", false);
    run.task.embedding.pooling = cls ? Pooling::cls : Pooling::mean;
  }
  if (const fs::path path = folder / "sentence_bert_config.json"; fs::exists(path))
    run.data.tokens_per_sample = std::min(run.data.tokens_per_sample,
                                          HfConfig(path).integer_or("max_seq_length", kMostPositions, kMostPositions));
}

/// Which head a file has, by a tensor of each; and what config.json says of it.
void read_head(const HfConfig& config, const TensorFiles& files, const char* classifier, const char* masked_lm,
               Blueprint& blueprint) {
  RunConfig& run = blueprint.run;
  const bool classifies = files.tensors().contains(classifier), guesses = files.tensors().contains(masked_lm);
  run.task = TaskConfig(classifies ? TaskType::sentence_prediction
                        : guesses  ? TaskType::masked_lm
                                   : TaskType::sentence_embedding,
                        run.model.type);
  if (!guesses) run.model.untie_output = false;
  config.check_head();
  if (classifies) blueprint.labels = config.labels();
  run.task.sentences.shorten = Shorten::keep_end;
  run.data.tokens_per_sample = run.model.max_positions;
  if (run.task.type == TaskType::sentence_embedding) read_embedding(files.path().parent_path(), run);
}

/// What config.json of BERT and RoBERTa have in common. `reserved`: rows of the table of positions that stand for none.
Blueprint read_encoder(const HfConfig& config, ModelType type, int64_t reserved) {
  config.check_type(name_of(type));
  config.require("is_decoder", false);
  config.require("add_cross_attention", false);
  QN_CHECK(config.text("position_embedding_type", "absolute") == "absolute",
           "{}: only position_embedding_type absolute is possible here", config.name());
  Blueprint blueprint;
  blueprint.run.model = ModelConfig(type);
  ModelConfig& m = blueprint.run.model;
  m.layers = config.integer("num_hidden_layers", 1, kMostLayers);
  m.embed_dim = config.integer("hidden_size", 4, kMostWidth);
  m.heads = config.integer("num_attention_heads", 1, kMostWidth);
  m.ffn_dim = config.integer("intermediate_size", 1, kMostWidth);
  m.max_positions = config.integer("max_position_embeddings", reserved + 2, kMostPositions) - reserved;
  m.dropout = config.dropout("hidden_dropout_prob");
  m.attention_dropout = config.dropout("attention_probs_dropout_prob");
  m.pooler_dropout = config.number("classifier_dropout", m.dropout);
  m.activation = config.activation("hidden_act", "gelu");
  m.untie_output = !config.flag("tie_word_embeddings", true);
  config.check_heads(m);
  blueprint.vocabulary = config.integer("vocab_size", kSpecialCount + 2, INT32_MAX);
  return blueprint;
}

Blueprint read_roberta(const HfConfig& config, const TensorFiles& files) {
  Blueprint blueprint = read_encoder(config, ModelType::roberta, kPadId + 1);
  config.check_eps("layer_norm_eps", 1e-12);
  for (const auto& [key, due] : {std::pair("bos_token_id", kBosId), {"pad_token_id", kPadId}, {"eos_token_id", kEosId}})
    config.check_id(key, due);
  QN_CHECK(config.integer_or("type_vocab_size", 2, 100) == 1, "{}: only type_vocab_size 1 is possible here",
           config.name());
  read_head(config, files, "classifier.out_proj.weight", "lm_head.dense.weight", blueprint);
  return blueprint;
}

Blueprint read_bert(const HfConfig& config, const TensorFiles& files) {
  Blueprint blueprint = read_encoder(config, ModelType::bert, 0);
  blueprint.run.model.norm_eps = config.eps("layer_norm_eps", 1e-12);
  blueprint.run.model.token_types = config.integer_or("type_vocab_size", 2, kMostTokenTypes);
  read_head(config, files, "classifier.weight", "cls.predictions.transform.dense.weight", blueprint);
  return blueprint;
}

struct Reader {
  const HfFamily& family;
  Blueprint (*read)(const HfConfig&, const TensorFiles&);
  HfVocabulary (*vocabulary)(const Tokenizer*, int64_t);
};

Reader reader_of(HfKind kind) {
  switch (kind) {
    case HfKind::gpt2:
      return {gpt2_family(), read_gpt2, gpt2_vocabulary};
    case HfKind::roberta:
      return {roberta_family(), read_roberta, roberta_vocabulary};
    case HfKind::bert:
      return {bert_family(), read_bert, bert_vocabulary};
    case HfKind::efficientnet:
      break;  // tasks/image_import.h
  }
  QN_ASSERT(false, "unknown kind");
}

/// A config.json with absurd sizes ends here, before a module is built, and before it gets memory.
void check_layers(const ModelConfig& model, const TensorFiles& files, const HfConfig& config) {
  QN_CHECK(model.layers <= std::ssize(files.tensors()),
           "{} describes a model of {} layers, but {} has {} tensors only: they do not belong together", config.name(),
           model.layers, files.path().string(), files.tensors().size());
}

void check_size(const Module& module, const TensorFiles& files, const HfConfig& config) {
  const auto bytes = static_cast<uint64_t>(module.parameters().elements()) * 2;  // in the smallest type
  QN_CHECK(bytes <= files.bytes() + (uint64_t{1} << 20),
           "{} describes a model of {} parameters, but {} has {} bytes only: they do not belong together",
           config.name(), group_digits(module.parameters().elements()), files.path().string(),
           group_digits(static_cast<int64_t>(files.bytes())));
}

struct ModelAndTask {
  ModelConfig model;
  TaskConfig task;
  void visit(ConfigVisitor& v) { visit_model_and_task(v, model, task); }
};

/// A configuration to go on with: the sections that must be as they are.
std::string continued(const RunConfig& config, const fs::path& out) {
  const bool tokenizer = find_tokenizer(out / kTokenizerFolder) != nullptr;
  std::string text = "# An imported model. To train it further, set data.path to text that was prepared with\n";
  text += fmt::format("#{} --dict {}/dict.txt\n",
                      tokenizer ? fmt::format(" --tokenizer {}/{}", out.string(), kTokenizerFolder) : "", out.string());
  ModelAndTask sections{config.model, config.task};
  sections.task.embedding.teacher = (out / kImportedCheckpoint).string();  // whose vectors are to be kept
  text += dump_config(sections);
  text += fmt::format("data:\n  tokens_per_sample: {}\n  max_tokens: {}\n", config.data.tokens_per_sample,
                      config.data.max_tokens);
  text +=
      fmt::format("checkpoint:\n  init_from: {}\n  dir: {}\n", SortedJson((out / kImportedCheckpoint).string()).dump(),
                  SortedJson((out / "run").string()).dump());  // a JSON string is one of YAML
  return text;
}

/// Names of a file in place of config.json's; and what names have to be.
void name_classes(const fs::path& file, const std::string& where, std::vector<std::string>& labels) {
  constexpr const char* kRemedy = "name the classes in a text, a line each, in their order (--classes FILE)";
  std::string named = where + ": id2label";
  if (!file.empty()) {
    named = file.string();
    const std::vector<std::string> names = labels_of(read_text_file(file));
    QN_CHECK_USAGE(names.size() == labels.size(), "{} names {} classes, the model has {}", named, names.size(),
                   labels.size());
    labels = names;
  }
  std::set<std::string> different;
  for (const std::string& label : labels) {
    QN_CHECK(!label.empty() && label.find_first_of("\t\r\n") == std::string::npos && !label.starts_with(' ') &&
                 !label.ends_with(' '),
             "{}: '{}' is no name of a class: {}", named, label, kRemedy);
    QN_CHECK(different.insert(label).second, "{}: two classes are called '{}': {}", named, label, kRemedy);
  }
}

/// Tables are prepared for the model with it (prepare --label-dict).
void save_classes(const std::vector<std::string>& labels, const fs::path& out) {
  Dictionary dictionary;
  for (const std::string& label : labels) dictionary.add(label, 1);
  make_folder((out / kClassNames).parent_path());
  save_dictionary(dictionary, out / kClassNames);
}

/// Tables of words are filled up to round numbers of rows; beyond that the tokenizer is another model's.
void warn_of_missing_names(const Tokenizer& tokenizer, int64_t size) {
  constexpr int64_t kRound = 128;
  const int64_t missing = size - std::ssize(tokenizer.words());
  if (missing >= kRound)
    spdlog::warn(
        "{} has {} tokens, the model {}: what the others stand for is not known, texts will never have them; "
        "is it the tokenizer of this model?",
        tokenizer.files().front().path.string(), group_digits(size - missing), group_digits(size));
}

}  // namespace

ImportSummary import_hf(const fs::path& source, HfKind kind, const fs::path& out, const fs::path& classes) {
  const Reader reader = reader_of(kind);
  QN_CHECK_USAGE(fs::exists(source), "{}: there is no such folder or file of a Hugging Face model", source.string());
  const TensorFiles files(source);
  const fs::path folder = files.path().parent_path();
  const HfConfig hf(folder / "config.json");
  Blueprint blueprint = reader.read(hf, files);
  RunConfig& config = blueprint.run;
  check_layers(config.model, files, hf);
  config.data.max_tokens = std::max(config.data.max_tokens, config.data.tokens_per_sample);
  StateDict state;
  state.ints["vocabulary"] = blueprint.vocabulary;
  const bool classifies = config.task.type == TaskType::sentence_prediction;
  if (classifies) name_classes(classes, hf.name(), blueprint.labels);
  QN_CHECK_USAGE(classifies || classes.empty(), "--classes is for classifiers; this is a model of task {}",
                 name_of(config.task.type));
  if (classifies) state.texts["labels"] = labels_text(blueprint.labels);
  state.texts["dictionary_hash"] = "";  // until sizes are known to be sound
  const std::unique_ptr<RunTask> task = task_of_checkpoint(config, state);
  Module& module = task->module();
  check_size(module, files, hf);
  const std::unique_ptr<Tokenizer> tokenizer = find_tokenizer(folder);
  const HfVocabulary vocabulary = reader.vocabulary(tokenizer.get(), blueprint.vocabulary);
  if (tokenizer) warn_of_missing_names(*tokenizer, blueprint.vocabulary);
  if (kind == HfKind::gpt2) hf.warn_of_other_end(vocabulary);
  state.texts["dictionary_hash"] = hex64(vocabulary.dictionary.hash());
  module.allocate(DType::f32, cpu_kernels());
  import_tensors(reader.family, config.model.layers, files, vocabulary, module);
  save_module(module, state);
  keep_spare(reader.family, files, config.model.embed_dim, module, state);
  RunState().save(state);
  state.texts["config"] = dump_config(config);
  state.texts["plan"] = plan_to_text(make_run_plan(module, config.quant_noise, nullptr));

  check_outputs(
      files.files(),
      std::vector<fs::path>{out / "dict.txt", out / kClassNames, out / kImportedCheckpoint, out / kImportedConfig}, {});
  make_folder(out);
  const FolderLock lock(out, "the folder");
  check_leftovers(out, {}, vocabulary.dictionary.hash());
  check_tokenizer_of_rest(out, {}, tokenizer.get());
  save_dictionary(vocabulary.dictionary, out / "dict.txt");
  save_tokenizer(out, tokenizer.get());
  if (!blueprint.labels.empty()) save_classes(blueprint.labels, out);
  save_state(out / kImportedCheckpoint, state);
  atomic_write_text(out / kImportedConfig, continued(config, out));
  return {.task = name_of(config.task.type),
          .parameters = module.parameters().elements(),
          .details = fmt::format("vocabulary {}, {} positions", group_digits(blueprint.vocabulary),
                                 group_digits(config.model.max_positions)),
          .tokenizer = vocabulary.known,
          .classes = static_cast<int64_t>(blueprint.labels.size())};
}

}  // namespace qn
