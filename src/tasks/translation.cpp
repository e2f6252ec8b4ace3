#include "tasks/translation.h"

#include <algorithm>
#include <cmath>

#include "core/profiler.h"
#include "core/text.h"
#include "core/work_progress.h"
#include "ops/host_access.h"
#include "tasks/stored_config.h"

namespace qn {
namespace {

constexpr const char *kSourceVocabulary = "source_vocabulary", *kSourceHash = "source_dictionary_hash";

Sequences sequences_of(const JoinedSentences& s) { return {s.begins, s.lengths, s.longest}; }

ParallelFolder open_folder(const RunConfig& config) {
  QN_CHECK_USAGE(!config.data.path.empty(),
                 "data.path is not set: name a folder made by `quantnoise prepare --pairs SOURCE-TARGET`");
  return ParallelFolder(config.data.path);
}

SourceDictionary source_of(const Dictionary& dictionary) { return {dictionary.size(), hex64(dictionary.hash())}; }

/// log p of the target in every row, and in how many rows it is the most likely word.
template <typename P>
int64_t count_rows(const Tensor& scores, std::span<const int32_t> targets, std::vector<double>& log_p) {
  const int64_t words = scores.cols(), rows = scores.rows();
  const P* const all = scores.as<P>();
  int64_t right = 0;
  log_p.resize(targets.size());
#pragma omp parallel for reduction(+ : right)
  for (int64_t row = 0; row < rows; ++row) {
    const P *own = all + row * words, *target = own + targets[static_cast<size_t>(row)];
    log_p[static_cast<size_t>(row)] = static_cast<double>(*target);
    right += std::max_element(own, own + words) == target ? 1 : 0;
  }
  return right;
}

}  // namespace

Translation::Translation(TextBlueprint plan, SourceDictionary source, std::string data_path)
    : TextTask(std::move(plan), std::move(data_path)),
      source_(std::move(source)),
      model_(make_seq2seq(blueprint().model, source_.vocabulary, blueprint().vocabulary)) {
  QN_CHECK_USAGE(!blueprint().model.share_all_embeddings || source_.hash == blueprint().dictionary_hash,
                 "model.share_all_embeddings needs one dictionary for both languages: prepare the data with "
                 "--joined-dict, or set model.share_all_embeddings: false");
}

Translation::Translation(const RunConfig& config, ParallelFolder folder)
    : Translation(TextBlueprint::of_config(config, folder.target.size(), folder.target.hash()),
                  source_of(folder.source), config.data.path) {
  data_config_ = config.data;
  folder_ = std::move(folder);
  seed_ = static_cast<uint64_t>(config.seed);
}

Translation::Translation(const RunConfig& config) : Translation(config, open_folder(config)) {}

std::unique_ptr<RunTask> Translation::from_config(const RunConfig& config) {
  return std::make_unique<Translation>(config);
}

std::unique_ptr<RunTask> Translation::preview(const RunConfig& config, int64_t vocabulary) {
  check_vocabulary_known(config, vocabulary);
  if (vocabulary == 0) return from_config(config);
  const TextBlueprint plan = TextBlueprint::of_config(config, vocabulary, 0);
  return std::unique_ptr<RunTask>(new Translation(plan, {vocabulary, plan.dictionary_hash}, {}));
}

std::unique_ptr<RunTask> Translation::from_checkpoint(const RunConfig& config, const StateDict& state) {
  return std::unique_ptr<RunTask>(new Translation(TextBlueprint::of_checkpoint(config, state),
                                                  {state.integer(kSourceVocabulary), state.text(kSourceHash)}, {}));
}

std::unique_ptr<RunTask> Translation::from_packed(const SafetensorsReader& file, const std::string& path) {
  const int64_t words = metadata_integer(file, kSourceVocabulary, kUnkId + 1, INT32_MAX);
  return std::unique_ptr<RunTask>(
      new Translation(TextBlueprint::of_packed(file, path), {words, file.metadata_at(kSourceHash)}, {}));
}

PackedMetadata Translation::packed_metadata() const {
  PackedMetadata metadata = TextTask::packed_metadata();
  metadata[kSourceVocabulary] = std::to_string(source_.vocabulary);
  metadata[kSourceHash] = source_.hash;
  return metadata;
}

void Translation::save(StateDict& state) const {
  TextTask::save(state);
  state.ints[kSourceVocabulary] = source_.vocabulary;
  state.texts[kSourceHash] = source_.hash;
}

void Translation::check_weights(const StateDict& state) const {
  TextTask::check_weights(state);
  QN_CHECK(state.text(kSourceHash) == source_.hash,
           "the checkpoint was made with another dictionary of the source language (hash {}, {} has {}): use the data "
           "folder it was trained on",
           state.text(kSourceHash), data_path(), source_.hash);
}

void Translation::prune(StateDict&, const std::string& layers_to_keep) const {
  throw UsageError("checkpoint.layers_to_keep: '" + layers_to_keep +
                   "': layers are left out of language models and of RoBERTa, not of encoder-decoder models");
}

/// The encoder is like the decoder where nothing else is said.
void Translation::forget_unused(ModelConfig& model) const {
  if (model.encoder_layers == 0) model.encoder_layers = model.layers;
  if (model.encoder_ffn_dim == 0) model.encoder_ffn_dim = model.ffn_dim;
}

BatchList Translation::freeze(const std::string& name, const ParallelText& data, FreezeOptions options) const {
  std::vector<int32_t> lengths;
  for (size_t i = 0; i < data.source_sizes().size(); ++i)
    lengths.push_back(std::max(data.source_sizes()[i], data.target_sizes()[i]));
  options.max_positions = model_->max_positions();
  return freeze_batches(name, lengths, options);
}

void Translation::open_training() {
  const ProfileScope phase(Phase::data);
  FreezeOptions options{.limits = {.max_tokens = data_config_->max_tokens,
                                   .max_items = data_config_->max_sentences,
                                   .required_multiple = data_config_->required_multiple},
                        .seed = seed_};
  train_.emplace(*folder_, "train");
  BatchList batches = freeze("train", *train_, options);
  valid_.emplace(*folder_, data_config_->valid);
  options.over_long = data_config_->skip_invalid_size_valid ? OverLong::warn_and_drop : OverLong::error;
  valid_batches_ = freeze(data_config_->valid, *valid_, options);
  begin_training(std::move(batches), seed_, train_->checksum(), valid_->checksum());
}

std::string Translation::describe_data(int64_t micro_batches) const {
  return fmt::format(
      "{} to {}; vocabularies {} and {}{}; {} training pairs in {} batches, {} updates per epoch of {} "
      "micro-batches",
      folder_->source_language, folder_->target_language, group_digits(folder_->source.size()),
      group_digits(folder_->target.size()), folder_->joined() ? " (joined)" : "",
      group_digits(updates().batches().items()), group_digits(updates().batches().size()),
      group_digits(updates_per_epoch(micro_batches)), micro_batches);
}

Translation::Pairs Translation::pairs_of(const ParallelText& data, std::span<const int64_t> items) const {
  Pairs pairs;
  for (const int64_t item : items) {
    pairs.source.add(data.source(item));
    const std::vector<int32_t> target = data.target(item);
    pairs.target.add(target);
    pairs.previous.push_back(kEosId);
    pairs.previous.insert(pairs.previous.end(), target.begin(), target.end() - 1);
  }
  return pairs;
}

namespace {

template <typename Pairs>
PairBatch batch_of(const Pairs& pairs) {
  return {pairs.source.tokens, sequences_of(pairs.source), pairs.previous, pairs.target.tokens,
          sequences_of(pairs.target)};
}

}  // namespace

MicroBatch Translation::learn(Pairs pairs) {
  pairs_ = std::move(pairs);
  return {[this](Tape& tape) {
            return model_->losses(tape, batch_of(pairs_), blueprint().task.translation.label_smoothing);
          },
          std::ssize(pairs_.target.tokens), std::ssize(pairs_.source.tokens) + std::ssize(pairs_.target.tokens)};
}

MicroBatch Translation::micro_batch(int64_t index, const RandomKey&) {
  const ProfileScope reading(Phase::data, index);
  return learn(pairs_of(*train_, updates().micro_batch(index)));
}

MicroBatch Translation::example(int64_t i, int64_t count) {
  return learn(pairs_of(*train_, updates().example(i, count)));
}

Translation::Counts Translation::score(Seq2Seq& model, const ParallelText& data, const BatchList& batches,
                                       const Kernels& kernels, Communicator& comm, DType dtype) const {
  const ProfileScope phase(Phase::validation);
  Arena arena(*kernels.memory);
  Tape tape(kernels, arena, dtype, {});
  Counts counts;
  for (int64_t i = comm.rank(); i < batches.size(); i += comm.size()) {
    tell_work(i, batches.size());
    const Pairs pairs = pairs_of(data, batches[i]);
    tape.restart({});
    const PairBatch batch = batch_of(pairs);
    const Var features = model.features(tape, batch, model.encode(tape, batch.source, batch.sources));
    const HostView view(kernels, model.head().log_probabilities(tape, features));
    const Tensor& scores = view.view();
    std::vector<double> log_p;
    counts.right += scores.dtype == DType::f64 ? count_rows<double>(scores, batch.target, log_p)
                                               : count_rows<float>(scores, batch.target, log_p);
    for (const double target : log_p) counts.loss -= target;
    counts.tokens += scores.rows();
    arena.reset();
  }
  counts.loss = comm.all_reduce_sum_value(counts.loss);
  counts.tokens = comm.all_reduce_sum_value(counts.tokens);
  counts.right = comm.all_reduce_sum_value(counts.right);
  return counts;
}

Evaluation Translation::judge(const Counts& counts) {
  Evaluation result{.loss = counts.loss, .sample_size = counts.tokens, .metrics = {}};
  const double accuracy = 100.0 * static_cast<double>(counts.right) / static_cast<double>(counts.tokens);
  result.metrics = {{.name = "loss", .value = result.base2()},
                    {.name = "accuracy", .value = accuracy, .higher_is_better = true, .digits = 2},
                    {.name = "ppl", .value = std::exp2(result.base2()), .title = "perplexity", .digits = 2}};
  return result;
}

Evaluation Translation::evaluate_module(Module& module, const Kernels& kernels, Communicator& comm, DType dtype) {
  auto* model = dynamic_cast<Seq2Seq*>(&module);
  QN_ASSERT(model != nullptr, "not an encoder-decoder");
  return judge(score(*model, *valid_, valid_batches_, kernels, comm, dtype));
}

void Translation::check_folder(const ParallelFolder& folder) const {
  const auto check = [&](const Dictionary& dictionary, const std::string& language, const std::string& hash) {
    QN_CHECK(
        hex64(dictionary.hash()) == hash,
        "{}/dict.{}.txt is not the dictionary of this model (hash {}, the model has {}): prepare the text with the "
        "dictionaries that the model was trained with",
        folder.path.string(), language, hex64(dictionary.hash()), hash);
  };
  check(folder.source, folder.source_language, source_.hash);
  check(folder.target, folder.target_language, blueprint().dictionary_hash);
}

Vocabulary Translation::open_vocabulary(const std::string& path) {
  ParallelFolder folder(path);
  check_folder(folder);
  Vocabulary vocabulary{find_tokenizer(folder.path / kTokenizerFolder), std::move(folder.target), {}};
  if (vocabulary.dictionary.hash() != folder.source.hash()) vocabulary.source = std::move(folder.source);
  return vocabulary;
}

void Translation::check_source(const Vocabulary& vocabulary, const std::string& where) const {
  QN_CHECK(hex64(vocabulary.source_dictionary().hash()) == source_.hash,
           "{}: the dictionary of the source language that it carries is not the one of its model: the file is damaged",
           where);
}

EvalReport Translation::score_data(const EvalConfig& config, const Kernels& kernels, Communicator& comm, DType dtype) {
  check_no_teacher(config);
  QN_CHECK_USAGE(
      config.context_window == 0 && config.bpe_marker.empty() && config.break_mode == BreakMode::none &&
          !config.tokens_per_sample,
      "--context-window, --bpe-marker, --break-mode and --tokens-per-sample are for texts, this model scores "
      "pairs of lines");
  const ParallelFolder folder(config.data);
  check_folder(folder);
  const ParallelText data(folder, config.split);
  const BatchList batches =
      freeze(config.split, data,
             {.limits = {.max_tokens = config.max_tokens, .required_multiple = 1}, .over_long = OverLong::error});
  const Evaluation found = judge(score(*model_, data, batches, kernels, comm, dtype));
  return {.amount = group_digits(found.sample_size) + " tokens",
          .result = fmt::format("loss {:.4f} bits, accuracy {:.2f} %, perplexity {:.2f}", found.at("loss"),
                                found.at("accuracy"), found.at("ppl")),
          .fields = {{"tokens", found.sample_size},
                     {"loss_base2", found.at("loss")},
                     {"accuracy", found.at("accuracy")},
                     {"perplexity", found.at("ppl")}}};
}

namespace {

void count(std::vector<int64_t>& counts, const std::vector<int32_t>& ids) {
  for (const int32_t id : ids) ++counts[static_cast<size_t>(id)];
}

}  // namespace

std::vector<int64_t> Translation::count_tokens() const {
  std::vector<int64_t> counts(static_cast<size_t>(blueprint().vocabulary));
  for (int64_t i = 0; i < train_->size(); ++i) count(counts, train_->target(i));
  return counts;
}

std::vector<float> Translation::row_importance(const Weight& weight, double exponent) const {
  const bool source = weight.name().starts_with("encoder.");
  if (!source || exponent == 0.0 || weight.first_token() < 0) return TextTask::row_importance(weight, exponent);
  std::vector<int64_t> counts = blueprint().model.share_all_embeddings
                                    ? count_tokens()
                                    : std::vector<int64_t>(static_cast<size_t>(source_.vocabulary));
  for (int64_t i = 0; i < train_->size(); ++i) count(counts, train_->source(i));
  return frequency_importance(weight, counts, exponent);
}

}  // namespace qn
