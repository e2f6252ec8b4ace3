#include "tasks/text_task.h"

#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <cmath>
#include <filesystem>

#include "core/text.h"
#include "tasks/pruning.h"
#include "tasks/stored_config.h"

namespace qn {

TextBlueprint TextBlueprint::of_config(const RunConfig& config, int64_t vocabulary, uint64_t dictionary_hash) {
  return {config.model, config.task, vocabulary, hex64(dictionary_hash), config.data.tokens_per_sample};
}

TextBlueprint TextBlueprint::of_checkpoint(const RunConfig& config, const StateDict& state) {
  return {.model = config.model,
          .task = config.task,
          .vocabulary = state.integer("vocabulary"),
          .dictionary_hash = state.text("dictionary_hash"),
          .tokens_per_sample = config.data.tokens_per_sample,
          .training_data = config.data.path};
}

TextBlueprint TextBlueprint::of_packed(const SafetensorsReader& file, const std::string& path) {
  return {.model = packed_model_config(file, path),
          .task = packed_task_config(file, path),
          .vocabulary = metadata_integer(file, "vocabulary", kUnkId + 1, INT32_MAX),
          .dictionary_hash = file.metadata_at("dictionary_hash"),
          .tokens_per_sample = metadata_integer(file, "tokens_per_sample", 2, kMostPositions),
          .file = path,
          .vocabulary_in_file = vocabulary_streams(file)};
}

void check_vocabulary_known(const RunConfig& config, int64_t vocabulary) {
  QN_CHECK_USAGE(vocabulary > 0 || !config.data.path.empty(),
                 "a configuration tells shapes together with a vocabulary: --vocab N, or data.path with a dict.txt");
}

namespace {

void erase_line(std::string& text, std::string_view key) {
  const size_t begin = text.find(std::string(key) + ": ");
  QN_ASSERT(begin != std::string::npos, "{}", key);
  text.erase(begin, text.find('\n', begin) + 1 - begin);
}

/// Keys that older programs do not know are left out where they change nothing: those programs read the file then.
std::string packed_model(const ModelConfig& model) {
  std::string text = dump_config(model);
  erase_line(text, "layerdrop");
  if (model.share_layers == 1) erase_line(text, "share_layers");
  return text;
}

}  // namespace

PackedMetadata TextTask::packed_metadata() const {
  PackedMetadata metadata{{"model", packed_model(blueprint_.model)},
                          {"vocabulary", std::to_string(blueprint_.vocabulary)},
                          {"dictionary_hash", blueprint_.dictionary_hash},
                          {"tokens_per_sample", std::to_string(blueprint_.tokens_per_sample)}};
  if (blueprint_.task.type != TaskType::language_modeling) metadata["task"] = dump_config(blueprint_.task);
  return metadata;
}

void TextTask::begin_training(BatchList batches, uint64_t seed, uint64_t train_checksum, uint64_t valid_checksum) {
  updates_.emplace(std::move(batches), seed);
  updates_->of_data(train_checksum, valid_checksum);
}

void TextTask::check_dictionary(const Dictionary& dictionary, const std::string& folder) const {
  QN_CHECK(
      hex64(dictionary.hash()) == blueprint_.dictionary_hash,
      "{}/dict.txt is not the dictionary of this model (hash {}, the model has {}): prepare the text with --dict and "
      "the dictionary that the model was trained with",
      folder, hex64(dictionary.hash()), blueprint_.dictionary_hash);
}

Dictionary TextTask::open_dictionary(const std::string& folder) const {
  Dictionary dictionary = Dictionary::load(std::filesystem::path(folder) / "dict.txt");
  check_dictionary(dictionary, folder);
  return dictionary;
}

Vocabulary TextTask::open_vocabulary(const std::string& folder) {
  Vocabulary vocabulary;
  vocabulary.dictionary = open_dictionary(folder);
  vocabulary.tokenizer = find_tokenizer(std::filesystem::path(folder) / kTokenizerFolder);
  return vocabulary;
}

VocabularyParts TextTask::vocabulary_parts(const std::string& data) {
  if (data.empty() && !blueprint_.vocabulary_in_file.empty())
    return decompress_parts(blueprint_.vocabulary_in_file, blueprint_.file);
  return parts_of(open_vocabulary(folder_of(data)));
}

std::string TextTask::folder_of(const std::string& data) const {
  if (!data.empty()) return data;
  const std::string& training = data_path_.empty() ? blueprint_.training_data : data_path_;
  QN_CHECK_USAGE(!training.empty(),
                 "this model's file carries no vocabulary: name the folder of prepared data whose dictionary it was "
                 "trained with (--data FOLDER)");
  std::error_code error;
  QN_CHECK_USAGE(
      std::filesystem::is_directory(training, error),
      "the folder {} that this checkpoint was trained on is not there: name it, or another one prepared with "
      "the same dictionary (--data FOLDER)",
      training);
  return training;
}

const Vocabulary& TextTask::vocabulary(const std::string& data) {
  if (vocabulary_ && vocabulary_data_ == data) return *vocabulary_;
  const bool in_file = !blueprint_.vocabulary_in_file.empty();
  const VocabularyParts parts =
      in_file ? decompress_parts(blueprint_.vocabulary_in_file, blueprint_.file) : VocabularyParts();
  Vocabulary found;
  if (in_file && data.empty()) {
    found = vocabulary_of(parts, blueprint_.file);
    QN_CHECK(hex64(found.dictionary.hash()) == blueprint_.dictionary_hash,
             "{}: the dictionary that it carries is not the one of its model: the file is damaged", blueprint_.file);
    check_source(found, blueprint_.file);
  } else {
    const std::string folder = folder_of(data);
    found = open_vocabulary(folder);
    // The dictionaries are known to agree.
    QN_CHECK(!in_file || parts_of(found) == parts_of(vocabulary_of(parts, blueprint_.file)),
             "{} cuts text into words in another way than the model ({} carries what it was trained with): prepare the "
             "data with the tokenizer of the training data, or leave --data out",
             folder, blueprint_.file);
  }
  vocabulary_ = std::move(found);
  vocabulary_data_ = data;
  return *vocabulary_;
}

void TextTask::save(StateDict& state) const {
  updates_->save(state);
  state.ints["vocabulary"] = blueprint_.vocabulary;
  state.texts["dictionary_hash"] = blueprint_.dictionary_hash;
}

void TextTask::load(const StateDict& state) { updates_->load(state, data_path_, "tokens"); }

/// What decides which function the weights are of, written in one way only. The number of positions is a limit (or
/// the shape of a table, which is checked with all shapes).
std::string TextTask::architecture(ModelConfig m) const {
  m.dropout = m.attention_dropout = m.activation_dropout = m.adaptive.dropout = m.pooler_dropout = m.layerdrop = 0.0;
  m.max_positions = 0;
  m.preset = {};
  if (m.input_dim == 0) m.input_dim = m.embed_dim;
  if (m.output_dim == 0) m.output_dim = m.embed_dim;
  if (m.pooler_dim == 0) m.pooler_dim = m.embed_dim;
  if (m.adaptive.cutoffs.empty()) m.adaptive.factor = AdaptiveConfig{}.factor;
  forget_unused(m);
  return dump_config(ModelSection{m});
}

void TextTask::prune(StateDict& state, const std::string& layers_to_keep) const {
  const int64_t trained = model_of_checkpoint(state.text("config")).model.layers;
  prune_checkpoint(state, layers_to_keep);
  const int64_t kept = model_of_checkpoint(state.text("config")).model.layers;
  QN_CHECK_USAGE(kept == blueprint_.model.layers,
                 "checkpoint.layers_to_keep '{}' leaves {} of the checkpoint's {} layers, but {} of those in this "
                 "configuration: model.layers must be {}, as the checkpoint was trained",
                 layers_to_keep, kept, trained, blueprint_.model.layers, trained);
}

/// Not all of an architecture can be seen from the shapes of weights.
void TextTask::check_weights(const StateDict& state) const {
  if (const auto config = state.texts.find("config"); config != state.texts.end())
    check_architecture(architecture(model_of_checkpoint(config->second).model), architecture(blueprint_.model));
  const std::string& hash = blueprint_.dictionary_hash;
  QN_CHECK(
      state.text("dictionary_hash") == hash,
      "the checkpoint was made with another dictionary (hash {}, {} has {}): use the data folder it was trained on",
      state.text("dictionary_hash"), data_path_, hash);
}

std::vector<float> frequency_importance(const Weight& weight, std::span<const int64_t> token_counts, double exponent) {
  QN_ASSERT(weight.first_token() + weight.rows() <= std::ssize(token_counts), "{}", weight.name());
  std::vector<double> raw;
  double total = 0.0;
  for (int64_t row = 0; row < weight.rows(); ++row) {
    const int64_t count = token_counts[static_cast<size_t>(weight.first_token() + row)];
    raw.push_back(std::pow(static_cast<double>(count + 1), exponent));
    total += raw.back();
  }
  std::vector<float> importance;
  for (const double w : raw) importance.push_back(static_cast<float>(w * static_cast<double>(weight.rows()) / total));
  return importance;
}

std::vector<float> TextTask::row_importance(const Weight& weight, double exponent) const {
  if (exponent == 0.0 || weight.first_token() < 0) return {};
  if (token_counts_.empty()) token_counts_ = count_tokens();
  return frequency_importance(weight, token_counts_, exponent);
}

}  // namespace qn
