#include "tasks/sentence_embedding.h"

#include <algorithm>
#include <filesystem>
#include <numbers>
#include <numeric>
#include <utility>

#include "core/profiler.h"
#include "core/text.h"
#include "core/work_progress.h"
#include "ops/host_access.h"
#include "tasks/classes.h"
#include "tasks/line_reader.h"
#include "tasks/masked_lm.h"

namespace qn {
namespace {

/// A teacher's path is of no use to others than the run.
TextBlueprint without_teacher(TextBlueprint plan) {
  plan.task.embedding.teacher.clear();
  return plan;
}

/// <s> sentence </s>; what is too long loses what is behind, but not its </s>, as Hugging Face's tokenizers have it.
std::vector<int32_t> input_of(const std::vector<int32_t>& sentence, int64_t longest) {
  std::vector<int32_t> tokens{kBosId};
  tokens.insert(tokens.end(), sentence.begin(), sentence.end());
  if (std::ssize(tokens) > longest) {
    tokens.resize(static_cast<size_t>(longest));
    tokens.back() = kEosId;
  }
  return tokens;
}

}  // namespace

SentenceEmbedding::SentenceEmbedding(TextBlueprint plan, std::string data_path)
    : TextTask(without_teacher(plan), std::move(data_path)),
      model_(make_sentence_encoder(blueprint().model, blueprint().vocabulary, blueprint().tokens_per_sample, {})),
      teacher_path_(plan.task.embedding.teacher) {}

SentenceEmbedding::SentenceEmbedding(const RunConfig& config, Dictionary dictionary)
    : SentenceEmbedding(TextBlueprint::of_config(config, vocabulary_with_mask(dictionary), dictionary.hash()),
                        config.data.path) {
  data_config_ = config.data;
  dictionary_ = std::move(dictionary);
  seed_ = static_cast<uint64_t>(config.seed);
}

SentenceEmbedding::SentenceEmbedding(const RunConfig& config)
    : SentenceEmbedding(config, [&] {
        QN_CHECK_USAGE(!config.data.path.empty(), "data.path is not set: name a folder made by `quantnoise prepare`");
        return Dictionary::load(sentence_dictionary(config.data.path));
      }()) {}

std::unique_ptr<RunTask> SentenceEmbedding::from_config(const RunConfig& config) {
  return std::make_unique<SentenceEmbedding>(config);
}

std::unique_ptr<RunTask> SentenceEmbedding::preview(const RunConfig& config, int64_t vocabulary) {
  check_vocabulary_known(config, vocabulary);
  if (vocabulary == 0) return from_config(config);
  return std::unique_ptr<RunTask>(new SentenceEmbedding(TextBlueprint::of_config(config, vocabulary + 1, 0), {}));
}

std::unique_ptr<RunTask> SentenceEmbedding::from_checkpoint(const RunConfig& config, const StateDict& state) {
  return std::unique_ptr<RunTask>(new SentenceEmbedding(TextBlueprint::of_checkpoint(config, state), {}));
}

std::unique_ptr<RunTask> SentenceEmbedding::from_packed(const SafetensorsReader& file, const std::string& path) {
  return std::unique_ptr<RunTask>(new SentenceEmbedding(TextBlueprint::of_packed(file, path), {}));
}

/// There is no head.
void SentenceEmbedding::forget_unused(ModelConfig& model) const {
  model.untie_output = false;
  model.pooler_dim = 0;
}

int64_t SentenceEmbedding::longest(int64_t tokens_per_sample) const {
  return std::min(tokens_per_sample, model_->max_positions());
}

BatchList SentenceEmbedding::freeze(const SentenceLines& lines, FreezeOptions options) const {
  std::vector<int32_t> lengths;
  for (int64_t i = 0; i < lines.size(); ++i)
    lengths.push_back(static_cast<int32_t>(std::min<int64_t>(lines.length(i) + 1, options.max_positions)));
  return freeze_batches(lines.name(), lengths, options);
}

ModelFile SentenceEmbedding::load_encoder(const std::string& path, const char* key, const Kernels& kernels) const {
  ModelFile file = load_teacher(path, key, blueprint().dictionary_hash, kernels);
  const auto* model = dynamic_cast<SentenceEncoder*>(&file.module());
  QN_CHECK_USAGE(model != nullptr, "{}: {} is no encoder of sentences", key, path);
  const int64_t own = blueprint().model.embed_dim;
  QN_CHECK_USAGE(model->width() == own, "{}: vectors of {} have {} numbers, those of this model {}", key, path,
                 model->width(), own);
  return file;
}

SentenceEmbedding::Vectors SentenceEmbedding::vectors_of(const ModelFile& file) const {
  const auto* task = dynamic_cast<const SentenceEmbedding*>(file.task.get());
  return {dynamic_cast<SentenceEncoder*>(&file.module()), (task != nullptr ? task : this)->own_vectors().pooling};
}

SentenceEmbedding::Vectors SentenceEmbedding::teacher(const Kernels& kernels) {
  if (teacher_kernels_ != &kernels) {
    QN_CHECK_USAGE(!teacher_path_.empty(),
                   "task.teacher is not set: name the model file whose vectors are to be learned, for instance "
                   "imported.h5 of `quantnoise import`");
    teacher_ = load_encoder(teacher_path_, "task.teacher", kernels);
    teacher_kernels_ = &kernels;
  }
  return vectors_of(*teacher_);
}

void SentenceEmbedding::open_training() {
  const ProfileScope phase(Phase::data);
  teacher(cpu_kernels());  // what is wrong with it is told before anything else happens
  FreezeOptions options{.limits = {.max_tokens = data_config_->max_tokens,
                                   .max_items = data_config_->max_sentences,
                                   .required_multiple = data_config_->required_multiple},
                        .max_positions = longest(data_config_->tokens_per_sample),
                        .seed = seed_};
  train_.emplace(data_path(), dictionary_, "train");
  BatchList batches = freeze(*train_, options);
  valid_.emplace(data_path(), dictionary_, data_config_->valid);
  valid_batches_ = freeze(*valid_, options);
  begin_training(std::move(batches), seed_, train_->checksum(), valid_->checksum());
}

std::string SentenceEmbedding::describe_data(int64_t micro_batches) const {
  return fmt::format("vocabulary {}; {} training sentences in {} batches, {} updates per epoch of {} micro-batches",
                     group_digits(dictionary_.size()), group_digits(updates().batches().items()),
                     group_digits(updates().batches().size()), group_digits(updates_per_epoch(micro_batches)),
                     micro_batches);
}

/// The loss is 2 (1 - cosine), and logged in bits as all others are.
std::vector<Metric> SentenceEmbedding::training_metrics(double loss_base2) const {
  return {{.name = "cosine", .value = 1.0 - loss_base2 * std::numbers::ln2 / 2.0, .higher_is_better = true}};
}

JoinedSentences SentenceEmbedding::batch_of(const SentenceLines& lines, std::span<const int64_t> items,
                                            int64_t longest) const {
  JoinedSentences batch;
  for (const int64_t item : items) batch.add(input_of(lines.sentence(item), longest));
  return batch;
}

MicroBatch SentenceEmbedding::micro_batch_of(std::span<const int64_t> items) {
  batch_ = batch_of(*train_, items, longest(data_config_->tokens_per_sample));
  const Vectors teaching = teacher(model_->parameters().kernels()), own = own_vectors();
  return {[this, teaching, own](Tape& tape) {
            const SentenceBatch batch = view_of(batch_);
            Tape apart(tape.k, tape.arena, tape.dtype(), {});  // neither dropout nor gradients
            const Tensor targets = teaching.model->sentence_vectors(apart, batch, teaching.pooling).value;
            return squared_error(tape, own.model->sentence_vectors(tape, batch, own.pooling), targets);
          },
          batch_.count(), std::ssize(batch_.tokens)};
}

MicroBatch SentenceEmbedding::micro_batch(int64_t index, const RandomKey&) {
  const ProfileScope reading(Phase::data, index);
  return micro_batch_of(updates().micro_batch(index));
}

MicroBatch SentenceEmbedding::example(int64_t i, int64_t count) { return micro_batch_of(updates().example(i, count)); }

std::vector<float> SentenceEmbedding::compute(const Vectors& how, const SentenceLines& lines, const BatchList& batches,
                                              int64_t longest, const Kernels& kernels, Communicator& comm,
                                              DType dtype) const {
  const ProfileScope phase(Phase::validation);
  Arena arena(*kernels.memory);
  Tape tape(kernels, arena, dtype, {});
  const auto width = static_cast<size_t>(blueprint().model.embed_dim);
  std::vector<float> all(static_cast<size_t>(lines.size()) * width, 0.0f);
  for (int64_t b = comm.rank(); b < batches.size(); b += comm.size()) {
    tell_work(b, batches.size());
    const JoinedSentences batch = batch_of(lines, batches[b], longest);
    tape.restart({});
    const std::vector<double> values =
        host_doubles(tape, how.model->sentence_vectors(tape, view_of(batch), how.pooling).value);
    for (size_t s = 0; s < batches[b].size(); ++s)
      std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(s * width), width,
                  all.begin() + batches[b][s] * static_cast<int64_t>(width));
    arena.reset();
  }
  return all;
}

Evaluation SentenceEmbedding::compare(std::span<const float> vectors, std::span<const float> others,
                                      const BatchList& batches, int64_t lines, Communicator& comm) const {
  const auto width = static_cast<size_t>(blueprint().model.embed_dim);
  std::vector<double> cosines(static_cast<size_t>(lines), 0.0);
  for (size_t i = 0; i < cosines.size(); ++i)
    cosines[i] = std::inner_product(vectors.begin() + static_cast<std::ptrdiff_t>(i * width),
                                    vectors.begin() + static_cast<std::ptrdiff_t>((i + 1) * width),
                                    others.begin() + static_cast<std::ptrdiff_t>(i * width), 0.0);
  comm.all_reduce_sum(cosines);
  std::vector<double> scored;
  for (int64_t b = 0; b < batches.size(); ++b)
    for (const int64_t item : batches[b]) scored.push_back(cosines[static_cast<size_t>(item)]);
  std::sort(scored.begin(), scored.end());
  const double sum = std::accumulate(scored.begin(), scored.end(), 0.0);
  const auto count = std::ssize(scored);
  const auto at = [&](int64_t percent) { return scored[static_cast<size_t>((count - 1) * percent / 100)]; };
  const auto metric = [](const char* name, double value) {
    return Metric{.name = name, .value = value, .higher_is_better = true, .digits = 5};
  };
  return {.loss = 2.0 * (static_cast<double>(count) - sum),
          .sample_size = count,
          .metrics = {metric("cosine", sum / static_cast<double>(count)), metric("cosine_median", at(50)),
                      metric("cosine_p05", at(5)), metric("cosine_min", scored.front())}};
}

Evaluation SentenceEmbedding::evaluate_module(Module& module, const Kernels& kernels, Communicator& comm, DType dtype) {
  auto* model = dynamic_cast<SentenceEncoder*>(&module);
  QN_ASSERT(model != nullptr, "not an encoder of sentences");
  const int64_t most = longest(data_config_->tokens_per_sample);
  const auto vectors = [&](const Vectors& how) {
    return compute(how, *valid_, valid_batches_, most, kernels, comm, dtype);
  };
  if (valid_targets_.empty()) valid_targets_ = vectors(teacher(kernels));
  return compare(vectors({model, own_vectors().pooling}), valid_targets_, valid_batches_, valid_->size(), comm);
}

EvalReport SentenceEmbedding::score_data(const EvalConfig& config, const Kernels& kernels, Communicator& comm,
                                         DType dtype) {
  QN_CHECK_USAGE(config.context_window == 0 && config.bpe_marker.empty() && config.break_mode == BreakMode::none,
                 "--context-window, --bpe-marker and --break-mode are for texts, this model takes single sentences");
  QN_CHECK_USAGE(!config.teacher.empty(),
                 "--teacher is missing: the model file with whose vectors those of this one are compared; `quantnoise "
                 "embed` prints vectors");
  const Dictionary dictionary = Dictionary::load(sentence_dictionary(config.data));
  check_dictionary(dictionary, config.data);
  const SentenceLines lines(config.data, dictionary, config.split);
  const int64_t most = longest(config.tokens_per_sample.value_or(blueprint().tokens_per_sample));
  QN_CHECK_USAGE(most >= 2, "--tokens-per-sample must be at least 2, got {}", most);
  const ModelFile other = load_encoder(config.teacher, "--teacher", kernels);
  const BatchList batches =
      freeze(lines, {.limits = {.max_tokens = config.max_tokens, .required_multiple = 1}, .max_positions = most});
  const auto vectors = [&](const Vectors& how) { return compute(how, lines, batches, most, kernels, comm, dtype); };
  const Evaluation found = compare(vectors(own_vectors()), vectors(vectors_of(other)), batches, lines.size(), comm);
  EvalReport report{.amount = group_digits(found.sample_size) + " sentences", .result = found.text(), .fields = {}};
  report.fields.push_back({"sentences", found.sample_size});
  for (const Metric& metric : found.metrics) report.fields.push_back({metric.name, metric.value});
  return report;
}

std::vector<std::vector<float>> SentenceEmbedding::embed(const std::string& data, std::span<const std::string> lines,
                                                         const Kernels& kernels, DType dtype, int64_t lines_before) {
  const Vocabulary& words = vocabulary(data);
  LineReader reader(words.dictionary, words.tokenizer.get());
  std::vector<LineBatches::Item> items;
  for (size_t i = 0; i < lines.size(); ++i)
    items.push_back({.tokens = input_of(reader.read(lines[i], line_name(lines_before, i)),
                                        longest(blueprint().tokens_per_sample))});
  std::vector<std::vector<float>> vectors;
  for (const std::vector<double>&row :
       batches_.rows(items, kernels, dtype, [this](Tape&tape, const SentenceBatch&batch) {
         return model_->sentence_vectors(tape, batch, own_vectors().pooling);
       }))
    vectors.emplace_back(row.begin(), row.end());
  return vectors;
}

Vocabulary SentenceEmbedding::open_vocabulary(const std::string& folder) {
  Dictionary dictionary = Dictionary::load(sentence_dictionary(folder));
  check_dictionary(dictionary, folder);
  return {find_tokenizer(std::filesystem::path(folder) / kTokenizerFolder), std::move(dictionary), {}};
}

std::vector<int64_t> SentenceEmbedding::count_tokens() const {
  std::vector<int64_t> counts(static_cast<size_t>(blueprint().vocabulary));
  for (int64_t i = 0; i < train_->size(); ++i)
    for (const int32_t id : train_->sentence(i)) ++counts[static_cast<size_t>(id)];
  return counts;
}

}  // namespace qn
