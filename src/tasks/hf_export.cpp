#include <spdlog/spdlog.h>

#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "core/file_io.h"
#include "core/text.h"
#include "data/prepared_folder.h"
#include "tasks/hf_folder.h"
#include "tasks/hf_names.h"
#include "tasks/hf_tokenizer.h"
#include "tasks/stored_config.h"

namespace qn {
namespace {

namespace fs = std::filesystem;

constexpr const char* kHfTensors = "model.safetensors";

/// transformers' names of what the feed-forward blocks do.
const char* activation_name(Activation activation) {
  return activation == Activation::gelu_tanh ? "gelu_new" : activation == Activation::gelu ? "gelu" : "relu";
}

/// Throws UsageError unless transformers has a model of this form.
void check_form(const ModelConfig& m, const std::string& name) {
  const auto check = [&](bool good, const char* key, const char* due) {
    QN_CHECK_USAGE(good, "{}: transformers has no model of this form: {} would have to be {}", name, key, due);
  };
  check(!m.noise_projection, "model.noise_projection", "false");
  check(m.share_layers == 1, "model.share_layers", "1");
  check(m.type != ModelType::transformer, "model.type", "transformer_lm, roberta or bert");
  if (m.type == ModelType::transformer_lm) {
    check(m.prenorm && m.final_norm, "model.prenorm and model.final_norm", "true");
    check(m.learned_positions, "model.learned_positions", "true");
    check(!m.scale_embedding, "model.scale_embedding", "false");
    check(!m.adaptive.input && !m.adaptive.softmax, "model.adaptive.input and model.adaptive.softmax", "false");
    check((m.input_dim == 0 || m.input_dim == m.embed_dim) && (m.output_dim == 0 || m.output_dim == m.embed_dim),
          "model.input_dim and model.output_dim", "0 or embed_dim");
  } else {
    check(!m.prenorm, "model.prenorm", "false");
    check(m.pooler_dim == 0 || m.pooler_dim == m.embed_dim, "model.pooler_dim", "0 or embed_dim");
    check(m.type == ModelType::roberta || m.token_types > 0, "model.token_types", "1 at least");
  }
}

/// Values of weights as the model computes with them, and of other parameters.
class Values {
 public:
  explicit Values(Module& module) : module_(module) {}

  std::vector<float> operator()(const std::string& name) {
    Weight* weight = module_.weights().find(name);
    if (weight == nullptr) return module_.parameters().values_of(*module_.parameters().find(name));
    Arena arena(*cpu_kernels().memory);
    Tape tape(cpu_kernels(), arena, DType::f32, {});
    const Tensor value = weight->table(tape).value;
    return {value.as<float>(), value.as<float>() + value.elements()};
  }

 private:
  Module& module_;
};

/// What tells their ids: the vocabulary in `folder`, or where that is empty what the model's file carries or has beside
/// it. Nothing where there is none.
std::optional<Vocabulary> vocabulary_of(const ModelFile& model, const std::string& name, const fs::path& folder,
                                        const std::string& dictionary_hash) {
  if (folder.empty()) try {
      return qn::vocabulary_of(model.task->vocabulary_parts({}), name);
    } catch (const Error& error) {
      if (model.kind == ModelFileKind::packed && dynamic_cast<const UsageError*>(&error) == nullptr) throw;
      spdlog::warn(
          "{}: no vocabulary is known, so ids stay as they are here (0 to 3 are <s>, <pad>, </s> and <unk>), and the "
          "folder gets no tokenizer, nor fits one with other ids: name the folder of the import, or of the data that "
          "it was trained on (--vocabulary FOLDER)",
          name);
      return std::nullopt;
    }
  const fs::path of_table = folder / "input0" / "dict.txt", dictionary = folder / "dict.txt";
  const fs::path& known = fs::exists(of_table) && !fs::exists(dictionary) ? of_table : dictionary;
  Vocabulary found{find_tokenizer(folder / kTokenizerFolder), Dictionary::load(known), {}};
  const std::string hash = hex64(found.dictionary.hash());
  QN_CHECK_USAGE(hash == dictionary_hash, "{} is not the dictionary of this model (hash {}, the model has {})",
                 known.string(), hash, dictionary_hash);
  return found;
}

/// Which of their ids our entries are.
HfVocabulary ids_of(ModelType type, const std::optional<Vocabulary>& vocabulary, int64_t size) {
  const auto of = type == ModelType::roberta ? roberta_vocabulary
                  : type == ModelType::bert  ? bert_vocabulary
                                             : gpt2_vocabulary;
  if (vocabulary && vocabulary->tokenizer) try {
      HfVocabulary found = of(vocabulary->tokenizer.get(), size);
      if (found.dictionary.hash() == vocabulary->dictionary.hash()) return found;
    } catch (const Error&) {
      // A dictionary that was made of a text has some of the tokenizer's words, in an order of its own.
    }
  return of(nullptr, size);
}

std::vector<HfFile> tokenizer_of(ModelType type, const std::optional<Vocabulary>& vocabulary, const HfVocabulary& ids,
                                 int64_t size) {
  if (!vocabulary) return {};
  if (ids.known) return tokenizer_files(*vocabulary->tokenizer);
  std::string why;
  std::vector<HfFile> files = renumbered_tokenizer(*vocabulary, type, size, why);
  if (files.empty()) spdlog::warn("the folder gets no tokenizer: {}", why);
  return files;
}

using Json = nlohmann::ordered_json;

Json gpt2_json(const ModelConfig& m, bool tied, int32_t end) {
  return {{"architectures", {"GPT2LMHeadModel"}},
          {"model_type", "gpt2"},
          {"activation_function", activation_name(m.activation)},
          {"attn_pdrop", m.attention_dropout},
          {"bos_token_id", end},
          {"embd_pdrop", m.dropout},
          {"eos_token_id", end},
          {"layer_norm_epsilon", 1e-5},
          {"n_embd", m.embed_dim},
          {"n_head", m.heads},
          {"n_inner", m.ffn_dim},
          {"n_layer", m.layers},
          {"n_positions", m.max_positions},
          {"resid_pdrop", m.dropout},
          {"tie_word_embeddings", tied}};
}

/// The class of transformers that has an encoder and this task's head.
std::string architecture(const ModelConfig& m, TaskType task) {
  const std::string family = m.type == ModelType::bert ? "Bert" : "Roberta";
  return family + (task == TaskType::masked_lm             ? "ForMaskedLM"
                   : task == TaskType::sentence_prediction ? "ForSequenceClassification"
                                                           : "Model");
}

Json encoder_json(const ModelConfig& m, TaskType task, bool tied, const PackedMetadata& about, int32_t padding) {
  const auto labels = about.find("labels");
  const bool bert = m.type == ModelType::bert;
  Json config{{"architectures", {architecture(m, task)}},
              {"model_type", name_of(m.type)},
              {"attention_probs_dropout_prob", m.attention_dropout},
              {"classifier_dropout", m.pooler_dropout},
              {"hidden_act", activation_name(m.activation)},
              {"hidden_dropout_prob", m.dropout},
              {"hidden_size", m.embed_dim},
              {"intermediate_size", m.ffn_dim},
              {"layer_norm_eps", m.norm_eps},
              {"max_position_embeddings", m.max_positions + (bert ? 0 : kPadId + 1)},
              {"num_attention_heads", m.heads},
              {"num_hidden_layers", m.layers},
              {"pad_token_id", padding},
              {"tie_word_embeddings", tied},
              {"type_vocab_size", bert ? m.token_types : 1}};
  if (!bert) config["bos_token_id"] = kBosId, config["eos_token_id"] = kEosId;
  if (labels == about.end()) return config;
  std::istringstream lines(labels->second);
  Json names = Json::object(), numbers = Json::object();
  int number = 0;
  for (std::string name; std::getline(lines, name); ++number) {
    names[std::to_string(number)] = name;
    numbers[name] = number;
  }
  if (number == 0) names["0"] = "LABEL_0", numbers["LABEL_0"] = 0;  // one output: a score
  config["id2label"] = names;
  config["label2id"] = numbers;
  return config;
}

/// What sentence-transformers wants to know of a model that makes vectors of sentences.
std::vector<HfFile> embedding_files(const TaskConfig& task, int64_t width, int64_t longest) {
  const std::string module = "sentence_transformers.models.";
  Json modules = Json::array();
  for (const auto& [path, type] :
       {std::pair("", "Transformer"), {"1_Pooling", "Pooling"}, {"2_Normalize", "Normalize"}})
    modules.push_back(
        {{"idx", modules.size()}, {"name", std::to_string(modules.size())}, {"path", path}, {"type", module + type}});
  const bool mean = task.embedding.pooling == Pooling::mean;
  const Json pooling{
      {"word_embedding_dimension", width}, {"pooling_mode_cls_token", !mean}, {"pooling_mode_mean_tokens", mean}};
  return {{"modules.json", modules.dump(2) + "\n"},
          {"1_Pooling/config.json", pooling.dump(2) + "\n"},
          {"sentence_bert_config.json", Json{{"max_seq_length", longest}}.dump() + "\n"}};
}

const HfFamily& family_of(ModelType type) {
  return type == ModelType::bert ? bert_family() : type == ModelType::roberta ? roberta_family() : gpt2_family();
}

}  // namespace

std::vector<std::string> export_hf(const ModelFile& model, const std::string& name, const fs::path& vocabulary,
                                   const fs::path& out) {
  const PackedMetadata about = model.task->packed_metadata();
  auto config = read_stored<ModelConfig>(config_tree_from_text(about.at("model"), name + " (model)"));
  const auto stored = about.find("task");
  const TaskConfig task = stored == about.end()
                              ? TaskConfig(default_task(config.type), config.type)
                              : read_stored<TaskConfig>(config_tree_from_text(stored->second, name + " (task)"));
  check_form(config, name);
  const auto longest = static_cast<int64_t>(std::stoll(about.at("tokens_per_sample")));
  if (config.max_positions == 0) config.max_positions = longest;
  const int64_t size = std::stoll(about.at("vocabulary"));
  const std::optional<Vocabulary> words = vocabulary_of(model, name, vocabulary, about.at("dictionary_hash"));
  const HfVocabulary ids = ids_of(config.type, words, size);
  const bool lm = config.type == ModelType::transformer_lm, embeds = task.type == TaskType::sentence_embedding;
  Module& module = model.module();
  Values values(module);
  SafetensorsWriter tensors;
  tensors.set_metadata("format", "pt");
  export_tensors(family_of(config.type), config.layers, ids, module, values, embeds, tensors);
  const bool tied =
      module.weights().find(lm ? "decoder.output_projection.weight" : "encoder.lm_head.weight") == nullptr;
  Json json = lm ? gpt2_json(config, tied, ids.theirs[kEosId])
                 : encoder_json(config, task.type, tied, about, ids.theirs[kPadId]);
  json["torch_dtype"] = "float32";
  json["vocab_size"] = size;
  std::vector<HfFile> files{{"config.json", json.dump(2) + "\n"}};
  const auto add = [&](std::vector<HfFile> more) { std::move(more.begin(), more.end(), std::back_inserter(files)); };
  if (embeds) add(embedding_files(task, config.embed_dim, std::min(longest, config.max_positions)));
  add(tokenizer_of(config.type, words, ids, size));
  std::vector<fs::path> outputs{out / kHfTensors};
  for (const HfFile& file : files) outputs.push_back(out / file.name);
  std::vector<fs::path> inputs{name};
  if (words && words->tokenizer && !vocabulary.empty())
    for (const TokenizerFile& file : words->tokenizer->files()) inputs.push_back(file.path);
  check_outputs(inputs, outputs, {});
  make_folder(out);
  tensors.write(out / kHfTensors);
  std::vector<std::string> written{kHfTensors};
  for (const HfFile& file : files) {
    make_folder((out / file.name).parent_path());
    atomic_write_text(out / file.name, file.text);
    written.push_back(file.name);
  }
  return written;
}

}  // namespace qn
