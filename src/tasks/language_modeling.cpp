#include "tasks/language_modeling.h"

#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <utility>

#include "core/profiler.h"
#include "core/text.h"
#include "tasks/pruning.h"
#include "tasks/stored_config.h"

namespace qn {

LanguageModeling::LanguageModeling(Blueprint blueprint)
    : blueprint_(std::move(blueprint)),
      model_(make_language_model(blueprint_.model, blueprint_.vocabulary, blueprint_.tokens_per_sample)) {}

LanguageModeling::LanguageModeling(const RunConfig& config)
    : corpus_(std::in_place, config.data, static_cast<uint64_t>(config.seed)),
      blueprint_{config.model, corpus_->dictionary().size(), hex64(corpus_->dictionary().hash()),
                 config.data.tokens_per_sample},
      model_(make_language_model(blueprint_.model, blueprint_.vocabulary, blueprint_.tokens_per_sample)),
      data_path_(config.data.path) {}

std::unique_ptr<RunTask> LanguageModeling::from_config(const RunConfig& config) {
  return std::make_unique<LanguageModeling>(config);
}

std::unique_ptr<RunTask> LanguageModeling::preview(const RunConfig& config, int64_t vocabulary) {
  QN_CHECK_USAGE(vocabulary > 0 || !config.data.path.empty(),
                 "a configuration tells shapes together with a vocabulary: --vocab N, or data.path with a dict.txt");
  if (vocabulary == 0) return from_config(config);
  return std::unique_ptr<RunTask>(
      new LanguageModeling({config.model, vocabulary, hex64(0), config.data.tokens_per_sample}));
}

std::unique_ptr<RunTask> LanguageModeling::from_checkpoint(const RunConfig& config, const StateDict& state) {
  return std::unique_ptr<RunTask>(new LanguageModeling(
      {config.model, state.integer("vocabulary"), state.text("dictionary_hash"), config.data.tokens_per_sample}));
}

std::unique_ptr<RunTask> LanguageModeling::from_packed(const SafetensorsReader& file, const std::string& path) {
  return std::unique_ptr<RunTask>(new LanguageModeling(
      {read_stored<ModelConfig>(config_tree_from_text(file.metadata_at("model"), path + " (metadata 'model')")),
       metadata_integer(file, "vocabulary", kUnkId + 1, INT32_MAX), file.metadata_at("dictionary_hash"),
       metadata_integer(file, "tokens_per_sample", 2, kMostPositions)}));
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

PackedMetadata LanguageModeling::packed_metadata() const {
  return {{"model", packed_model(blueprint_.model)},
          {"vocabulary", std::to_string(blueprint_.vocabulary)},
          {"dictionary_hash", blueprint_.dictionary_hash},
          {"tokens_per_sample", std::to_string(blueprint_.tokens_per_sample)}};
}

std::string LanguageModeling::describe_data(int64_t micro_batches) const {
  return fmt::format("vocabulary {}; {} training tokens in {} blocks, {} updates per epoch of {} micro-batches",
                     group_digits(corpus_->dictionary().size()), group_digits(corpus_->train().stream().total_tokens()),
                     group_digits(corpus_->train().size()),
                     group_digits(corpus_->sampler().updates_per_epoch(micro_batches)), micro_batches);
}

std::vector<Metric> LanguageModeling::training_metrics(double loss_base2) const {
  return {{.name = "ppl", .value = std::exp2(loss_base2), .digits = 1}};
}

int64_t LanguageModeling::next_update(int64_t micro_batches) {
  before_update_ = corpus_->sampler().state();
  previous_ = std::exchange(groups_, corpus_->sampler().next_update(micro_batches));
  return static_cast<int64_t>(groups_.size());
}

void LanguageModeling::put_back_update() { corpus_->sampler().restore(before_update_); }

bool LanguageModeling::step_back() {
  if (previous_.empty()) return false;
  groups_ = std::exchange(previous_, {});
  return true;
}

MicroBatch LanguageModeling::micro_batch(int64_t index, const RandomKey&) {
  const ProfileScope reading(Phase::data, index);
  batch_ = corpus_->train().collate(groups_[static_cast<size_t>(index)]);
  const TokenBatch batch = view_of(batch_);
  return {[this, batch](Tape& tape) { return teachers_.losses(tape, *model_, batch); }, batch_.tokens};
}

MicroBatch LanguageModeling::example(int64_t i, int64_t count) {
  batch_ = corpus_->training_example(i, count);
  return micro_batch_of(*model_, view_of(batch_), batch_.tokens);
}

Evaluation LanguageModeling::evaluate_module(Module& module, const Kernels& kernels, Communicator& comm, DType dtype) {
  auto* model = dynamic_cast<LanguageModel*>(&module);
  QN_ASSERT(model != nullptr, "not a language model");
  const Score result = validate(*model, kernels, comm, corpus_->valid(), corpus_->valid_batches(), dtype);
  return {result.loss,
          result.tokens,
          {{.name = "loss", .value = result.base2()},
           {.name = "ppl", .value = result.perplexity(), .title = "perplexity", .digits = 2}}};
}

Dictionary LanguageModeling::open_dictionary(const std::string& folder) const {
  Dictionary dictionary = Dictionary::load(std::filesystem::path(folder) / "dict.txt");
  QN_CHECK(
      hex64(dictionary.hash()) == blueprint_.dictionary_hash,
      "{}/dict.txt is not the dictionary of this model (hash {}, the model has {}): prepare the text with --dict and "
      "the dictionary that the model was trained with",
      folder, hex64(dictionary.hash()), blueprint_.dictionary_hash);
  return dictionary;
}

EvalReport LanguageModeling::score_data(const EvalConfig& config, const Kernels& kernels, Communicator& comm,
                                        DType dtype) {
  const Dictionary dictionary = open_dictionary(config.data);
  const TokenStream stream = TokenStream::open(config.data, config.split);
  stream.verify(dictionary);
  const int64_t given = config.tokens_per_sample.value_or(0);
  EvalOptions options{.break_mode = config.break_mode,
                      .tokens_per_sample = given > 0 ? given : blueprint_.tokens_per_sample,
                      .context_window = config.context_window,
                      .max_tokens = config.max_tokens,
                      .dtype = dtype,
                      .continues = {}};
  if (!config.bpe_marker.empty())
    options.continues = [&dictionary, &marker = config.bpe_marker](int32_t id) {
      return dictionary.symbol(id).ends_with(marker);
    };
  const Score score = qn::evaluate(*model_, kernels, comm, stream, options);
  EvalReport report{.amount = group_digits(score.tokens) + " tokens",
                    .result = fmt::format("loss {:.4f} bits, perplexity {:.2f}", score.base2(), score.perplexity()),
                    .fields = {{"tokens", score.tokens},
                               {"words", score.words},
                               {"loss_base2", score.base2()},
                               {"perplexity", score.perplexity()},
                               {"token_perplexity", score.token_perplexity()}}};
  if (score.words != score.tokens)
    report.result +=
        fmt::format(" per word ({} words), {:.2f} per token", group_digits(score.words), score.token_perplexity());
  return report;
}

void LanguageModeling::save(StateDict& state) const {
  const SamplerState& sampler = corpus_->sampler().state();
  state.ints["sampler/epoch"] = sampler.epoch;
  state.ints["sampler/next"] = sampler.next;
  state.ints["sampler/samples"] = sampler.samples;
  state.ints["vocabulary"] = blueprint_.vocabulary;
  state.texts["dictionary_hash"] = blueprint_.dictionary_hash;
  state.texts["data_fingerprint"] = hex64(corpus_->sampler().fingerprint());
  state.texts["train_checksum"] = hex64(corpus_->train_checksum());
  state.texts["valid_checksum"] = hex64(corpus_->valid_checksum());
}

/// Checkpoints of older programs have no checksums of the data.
bool LanguageModeling::is_other(const StateDict& state, const std::string& entry, uint64_t checksum) {
  const auto stored = state.texts.find(entry);
  return stored != state.texts.end() && stored->second != hex64(checksum);
}

void LanguageModeling::load(const StateDict& state) {
  QN_CHECK(
      state.text("data_fingerprint") == hex64(corpus_->sampler().fingerprint()),
      "the training batches differ from those of the checkpoint (other data, data.* options or seed): restore them, "
      "or start a new run from these weights with checkpoint.init_from and another checkpoint.dir");
  QN_CHECK(!is_other(state, "train_checksum", corpus_->train_checksum()),
           "the tokens of {}/train are not those that the checkpoint was trained on (as many, but other ones): restore "
           "them, or start a new run from these weights with checkpoint.init_from and another checkpoint.dir",
           data_path_);
  if (is_other(state, "valid_checksum", corpus_->valid_checksum()))
    spdlog::warn(
        "the validation data are not those of the checkpoint: losses and the best checkpoint from before "
        "cannot be compared with those to come");
  corpus_->sampler().restore({.epoch = state.integer("sampler/epoch"),
                              .next = state.integer("sampler/next"),
                              .samples = state.integer("sampler/samples")});
}

namespace {

/// What decides which function the weights are of, written in one way only. The number of positions is a limit (or
/// the shape of a table, which is checked with all shapes).
std::string architecture(ModelSection section) {
  ModelConfig& m = section.model;
  m.dropout = m.attention_dropout = m.activation_dropout = m.adaptive.dropout = m.layerdrop = 0.0;
  m.max_positions = 0;
  if (m.input_dim == 0) m.input_dim = m.embed_dim;
  if (m.output_dim == 0) m.output_dim = m.embed_dim;
  if (m.adaptive.cutoffs.empty()) m.adaptive.factor = AdaptiveConfig{}.factor;
  return dump_config(section);
}

}  // namespace

void LanguageModeling::prune(StateDict& state, const std::string& layers_to_keep) const {
  const int64_t trained = model_of_checkpoint(state.text("config")).model.layers;
  prune_checkpoint(state, layers_to_keep);
  const int64_t kept = model_of_checkpoint(state.text("config")).model.layers;
  QN_CHECK_USAGE(kept == blueprint_.model.layers,
                 "checkpoint.layers_to_keep '{}' leaves {} of the checkpoint's {} layers, but {} of those in this "
                 "configuration: model.layers must be {}, as the checkpoint was trained",
                 layers_to_keep, kept, trained, blueprint_.model.layers, trained);
}

/// Not all of an architecture can be seen from the shapes of weights.
void LanguageModeling::check_weights(const StateDict& state) const {
  if (const auto config = state.texts.find("config"); config != state.texts.end()) {
    const std::vector<std::string> changes =
        diff_config(architecture(model_of_checkpoint(config->second)), architecture({blueprint_.model}));
    QN_CHECK(changes.empty(),
             "the checkpoint was trained as another model; what it was trained with -> what the configuration says: "
             "{}. Its weights are of no use to another model: set these keys as it was trained",
             fmt::join(changes, "; "));
  }
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

void LanguageModeling::learn_from(const std::vector<std::string>& files, double weight, const Kernels& kernels) {
  teachers_ = Teachers(files, weight, blueprint_.dictionary_hash, blueprint_.model, kernels);
}

std::vector<float> LanguageModeling::row_importance(const Weight& weight, double exponent) const {
  if (exponent == 0.0 || weight.first_token() < 0) return {};
  if (token_counts_.empty()) token_counts_ = corpus_->train().stream().counts(corpus_->dictionary().size());
  return frequency_importance(weight, token_counts_, exponent);
}

}  // namespace qn
