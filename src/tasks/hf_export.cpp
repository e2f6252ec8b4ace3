#include <nlohmann/json.hpp>
#include <sstream>

#include "core/file_io.h"
#include "core/text.h"
#include "data/prepared_folder.h"
#include "tasks/hf_folder.h"
#include "tasks/hf_names.h"
#include "tasks/stored_config.h"

namespace qn {
namespace {

namespace fs = std::filesystem;

/// transformers' names of what the feed-forward blocks do.
const char* activation_name(Activation activation) {
  return activation == Activation::gelu_tanh ? "gelu_new" : activation == Activation::gelu ? "gelu" : "relu";
}

/// Whether transformers has a model of this form.
class FormCheck {
 public:
  FormCheck(const ModelConfig& model, const std::string& name) : m_(model), name_(name) {
    check(!m_.noise_projection, "model.noise_projection", "false");
    check(m_.share_layers == 1, "model.share_layers", "1");
  }
  void gpt2() const {
    check(m_.prenorm && m_.final_norm, "model.prenorm and model.final_norm", "true");
    check(m_.learned_positions, "model.learned_positions", "true");
    check(!m_.scale_embedding, "model.scale_embedding", "false");
    check(!m_.adaptive.input && !m_.adaptive.softmax, "model.adaptive.input and model.adaptive.softmax", "false");
    check((m_.input_dim == 0 || m_.input_dim == m_.embed_dim) && (m_.output_dim == 0 || m_.output_dim == m_.embed_dim),
          "model.input_dim and model.output_dim", "0 or embed_dim");
  }
  void roberta() const {
    check(!m_.prenorm, "model.prenorm", "false");
    check(m_.pooler_dim == 0 || m_.pooler_dim == m_.embed_dim, "model.pooler_dim", "0 or embed_dim");
  }

 private:
  void check(bool good, const char* key, const char* due) const {
    QN_CHECK_USAGE(good, "{}: transformers has no model of this form: {} would have to be {}", name_, key, due);
  }
  const ModelConfig& m_;
  const std::string& name_;
};

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

/// Which of their ids our entries are. A folder without a tokenizer says only that its dictionary is the model's.
HfVocabulary vocabulary_of(ModelType type, const fs::path& folder, int64_t size, const std::string& dictionary_hash) {
  const auto of = type == ModelType::roberta ? roberta_vocabulary : gpt2_vocabulary;
  if (folder.empty()) return of({}, size);
  const std::string hash = hex64(Dictionary::load(folder / "dict.txt").hash());
  QN_CHECK_USAGE(hash == dictionary_hash, "{}/dict.txt is not the dictionary of this model (hash {}, the model has {})",
                 folder.string(), hash, dictionary_hash);
  if (find_tokenizer(folder / kTokenizerFolder)) try {
      HfVocabulary vocabulary = of(folder / kTokenizerFolder, size);
      if (hex64(vocabulary.dictionary.hash()) == dictionary_hash) return vocabulary;
    } catch (const Error&) {
      // A dictionary that was made of a text has some of the tokenizer's words, in an order of its own.
    }
  return of({}, size);
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

Json roberta_json(const ModelConfig& m, bool tied, const PackedMetadata& about) {
  const auto labels = about.find("labels");
  Json config{{"architectures", {labels == about.end() ? "RobertaForMaskedLM" : "RobertaForSequenceClassification"}},
              {"model_type", "roberta"},
              {"attention_probs_dropout_prob", m.attention_dropout},
              {"bos_token_id", kBosId},
              {"classifier_dropout", m.pooler_dropout},
              {"eos_token_id", kEosId},
              {"hidden_act", activation_name(m.activation)},
              {"hidden_dropout_prob", m.dropout},
              {"hidden_size", m.embed_dim},
              {"intermediate_size", m.ffn_dim},
              {"layer_norm_eps", 1e-5},
              {"max_position_embeddings", m.max_positions + kPadId + 1},
              {"num_attention_heads", m.heads},
              {"num_hidden_layers", m.layers},
              {"pad_token_id", kPadId},
              {"tie_word_embeddings", tied},
              {"type_vocab_size", 1}};
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

/// The tokenizer's files by Hugging Face's names.
void copy_tokenizer(const fs::path& from, const fs::path& out) {
  const auto tokenizer = find_tokenizer(from);
  if (!tokenizer) return;
  for (const TokenizerFile& file : tokenizer->files()) {
    const std::string name = file.path.filename().string();
    atomic_write_text(out / (name == "encoder.json" ? "vocab.json"
                             : name == "vocab.bpe"  ? "merges.txt"
                                                    : name),
                      file.text);
  }
}

}  // namespace

void export_hf(const ModelFile& model, const std::string& name, const fs::path& vocabulary, const fs::path& out) {
  const PackedMetadata about = model.task->packed_metadata();
  auto config = read_stored<ModelConfig>(config_tree_from_text(about.at("model"), name + " (model)"));
  const bool roberta = config.type == ModelType::roberta;
  const FormCheck form(config, name);
  roberta ? form.roberta() : form.gpt2();
  if (config.max_positions == 0) config.max_positions = std::stoll(about.at("tokens_per_sample"));
  const int64_t size = std::stoll(about.at("vocabulary"));
  const HfVocabulary ids = vocabulary_of(config.type, vocabulary, size, about.at("dictionary_hash"));
  Module& module = model.module();
  Values values(module);
  SafetensorsWriter tensors;
  tensors.set_metadata("format", "pt");
  export_tensors(roberta ? roberta_family() : gpt2_family(), config.layers, ids, module, values, tensors);
  const bool tied =
      module.weights().find(roberta ? "encoder.lm_head.weight" : "decoder.output_projection.weight") == nullptr;
  Json json = roberta ? roberta_json(config, tied, about) : gpt2_json(config, tied, ids.theirs[kEosId]);
  json["torch_dtype"] = "float32";
  json["vocab_size"] = size;
  make_folder(out);
  tensors.write(out / "model.safetensors");
  atomic_write_text(out / "config.json", json.dump(2) + "\n");
  if (ids.known) copy_tokenizer(vocabulary / kTokenizerFolder, out);
}

}  // namespace qn
