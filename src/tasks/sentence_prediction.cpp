#include "tasks/sentence_prediction.h"

#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numbers>
#include <utility>

#include "core/profiler.h"
#include "core/text.h"
#include "core/work_progress.h"
#include "ops/host_access.h"
#include "tasks/classes.h"
#include "tasks/masked_lm.h"
#include "tasks/sentence_metrics.h"

namespace qn {
SentencePrediction::SentencePrediction(TextBlueprint plan, Labels labels, std::string data_path)
    : TextTask(std::move(plan), std::move(data_path)), labels_(std::move(labels)) {
  QN_CHECK(labels_.size() != 1, "there is one class only, '{}': nothing is to be learned", labels_.front());
  const SentenceMetric metric = blueprint().task.sentences.metric;
  const bool any = metric == SentenceMetric::automatic || metric == SentenceMetric::loss;
  QN_CHECK_USAGE(
      any || is_of_regression(metric) == regression(), "task.metric: {} does not judge {}", name_of(metric),
      regression() ? "numbers, which these data have for labels" : "classes, which these data have for labels");
  model_ = make_sentence_encoder(blueprint().model, blueprint().vocabulary, blueprint().tokens_per_sample,
                                 {.classes = regression() ? 1 : std::ssize(labels_)});
}

SentencePrediction::SentencePrediction(const RunConfig& config, SentencePairFolder folder)
    : SentencePrediction(
          TextBlueprint::of_config(config, vocabulary_with_mask(folder.dictionary), folder.dictionary.hash()),
          folder.labels, config.data.path) {
  data_config_ = config.data;
  pairs_ = folder.pairs;
  folder_ = std::move(folder);
  seed_ = static_cast<uint64_t>(config.seed);
}

SentencePrediction::SentencePrediction(const RunConfig& config)
    : SentencePrediction(config, [&] {
        QN_CHECK_USAGE(!config.data.path.empty(),
                       "data.path is not set: name a folder made by `quantnoise prepare --table`; the classes are told "
                       "by its labels");
        return SentencePairFolder(config.data.path);
      }()) {}

std::unique_ptr<RunTask> SentencePrediction::from_config(const RunConfig& config) {
  return std::make_unique<SentencePrediction>(config);
}

/// Without data nobody knows the classes: there are two, as in most tasks.
std::unique_ptr<RunTask> SentencePrediction::preview(const RunConfig& config, int64_t vocabulary) {
  if (vocabulary == 0) return from_config(config);
  spdlog::info("what depends on the labels is told for two classes");
  return std::unique_ptr<RunTask>(
      new SentencePrediction(TextBlueprint::of_config(config, vocabulary + 1, 0), {"0", "1"}, {}));
}

std::unique_ptr<RunTask> SentencePrediction::from_checkpoint(const RunConfig& config, const StateDict& state) {
  std::unique_ptr<SentencePrediction> task(
      new SentencePrediction(TextBlueprint::of_checkpoint(config, state), labels_of(state.text(kLabels)), {}));
  task->pairs_ = pairs_of(state.texts);
  return task;
}

std::unique_ptr<RunTask> SentencePrediction::from_packed(const SafetensorsReader& file, const std::string& path) {
  std::unique_ptr<SentencePrediction> task(
      new SentencePrediction(TextBlueprint::of_packed(file, path), labels_of(file.metadata_at(kLabels)), {}));
  task->pairs_ = pairs_of(file.metadata());
  return task;
}

PackedMetadata SentencePrediction::packed_metadata() const {
  PackedMetadata metadata = TextTask::packed_metadata();
  metadata[kLabels] = labels_text(labels_);
  if (pairs_) metadata[kPairs] = *pairs_ ? "true" : "false";
  return metadata;
}

/// There is no masked-LM head, and the shape of the other one is checked with all shapes.
void SentencePrediction::forget_unused(ModelConfig& model) const {
  model.untie_output = false;
  model.pooler_dim = 0;
}

SentenceInputs SentencePrediction::inputs(int64_t longest) const {
  const SentencePredictionConfig& config = blueprint().task.sentences;
  return {.init_token = static_cast<int32_t>(config.init_token),
          .separator_token = static_cast<int32_t>(config.separator_token),
          .shorten = config.shorten,
          .longest = std::min(longest, model_->max_positions())};
}

BatchList SentencePrediction::freeze(const SentencePairs& data, const SentenceInputs& how,
                                     FreezeOptions options) const {
  std::vector<int32_t> lengths;
  for (int64_t i = 0; i < data.size(); ++i)
    lengths.push_back(how.length(data.length0(i), data.pairs() ? data.length1(i) : -1));
  options.max_positions = how.longest;
  return freeze_batches(data.name(), lengths, options);
}

void SentencePrediction::open_training() {
  const ProfileScope phase(Phase::data);
  const SentenceInputs how = inputs(data_config_->tokens_per_sample);
  FreezeOptions options{.limits = {.max_tokens = data_config_->max_tokens,
                                   .max_items = data_config_->max_sentences,
                                   .required_multiple = data_config_->required_multiple},
                        .seed = seed_};
  const auto open = [&](const std::string& split) {
    SentencePairs data(*folder_, split);
    QN_CHECK_USAGE(data.labelled(),
                   "{} has no labels, which training and validation need: prepare a table that has a column of them "
                   "(prepare --columns label=NAME), or name another split (data.valid)",
                   data.name());
    return data;
  };
  train_ = open("train");
  BatchList batches = freeze(*train_, how, options);
  valid_ = open(data_config_->valid);
  options.over_long = data_config_->skip_invalid_size_valid ? OverLong::warn_and_drop : OverLong::error;
  valid_batches_ = freeze(*valid_, how, options);
  begin_training(std::move(batches), seed_, train_->checksum(), valid_->checksum());
}

std::string SentencePrediction::describe_data(int64_t micro_batches) const {
  return fmt::format("vocabulary {}; {} training {} in {} batches, {}, {} updates per epoch of {} micro-batches",
                     group_digits(folder_->dictionary.size()), group_digits(updates().batches().items()),
                     folder_->pairs ? "pairs" : "sentences", group_digits(updates().batches().size()),
                     regression() ? "scored" : fmt::format("classes {}", fmt::join(labels_, ", ")),
                     group_digits(updates_per_epoch(micro_batches)), micro_batches);
}

/// A loss of a regression is logged in bits as all others are.
std::vector<Metric> SentencePrediction::training_metrics(double loss_base2) const {
  if (!regression()) return {};
  return {{.name = "mse", .value = loss_base2 * std::numbers::ln2}};
}

SentencePrediction::SentenceBatchData SentencePrediction::batch_of(const SentencePairs& data,
                                                                   std::span<const int64_t> items,
                                                                   const SentenceInputs& how) const {
  SentenceBatchData batch;
  for (const int64_t item : items) {
    const std::vector<int32_t> first = data.input0(item),
                               second = data.pairs() ? data.input1(item) : std::vector<int32_t>();
    batch.sentences.add(how.compose(first, second, data.pairs()), how.second_begin(first.size(), second.size()));
    if (!data.labelled()) continue;
    if (regression())
      batch.scores.push_back(data.score(item));
    else
      batch.labels.push_back(data.label(item));
  }
  return batch;
}

Tensor SentencePrediction::losses(Tape& tape, const Var& logits, const SentenceBatchData& batch) const {
  return regression() ? squared_error(tape, logits, batch.scores) : cross_entropy(tape, logits, batch.labels);
}

MicroBatch SentencePrediction::micro_batch(int64_t index, const RandomKey&) {
  const ProfileScope reading(Phase::data, index);
  batch_ = batch_of(*train_, updates().micro_batch(index), inputs(data_config_->tokens_per_sample));
  return ready();
}

MicroBatch SentencePrediction::ready() {
  return {[this](Tape& tape) {
            return teachers_.losses(tape, *model_, [this](Module& module, Tape& own) {
              auto& model = dynamic_cast<SentenceEncoder&>(module);
              return losses(own, model.sentence_logits(own, view_of(batch_.sentences)), batch_);
            });
          },
          batch_.sentences.count(), std::ssize(batch_.sentences.tokens)};
}

MicroBatch SentencePrediction::example(int64_t i, int64_t count) {
  batch_ = batch_of(*train_, updates().example(i, count), inputs(data_config_->tokens_per_sample));
  return ready();
}

SentencePrediction::Outputs SentencePrediction::run(SentenceEncoder& model, const SentencePairs& data,
                                                    const BatchList& batches, const SentenceInputs& how,
                                                    const Kernels& kernels, Communicator& comm, DType dtype) const {
  const ProfileScope phase(Phase::validation);
  Arena arena(*kernels.memory);
  Tape tape(kernels, arena, dtype, {});
  Outputs outputs;
  outputs.values.resize(static_cast<size_t>(data.size()));
  for (int64_t i = comm.rank(); i < batches.size(); i += comm.size()) {
    tell_work(i, batches.size());
    const std::span<const int64_t> items = batches[i];
    const SentenceBatchData batch = batch_of(data, items, how);
    tape.restart({});
    const Var logits = model.sentence_logits(tape, view_of(batch.sentences));
    const std::vector<double> values = host_doubles(tape, logits.value);
    const auto classes = static_cast<size_t>(logits.value.cols());
    for (size_t s = 0; s < items.size(); ++s) {
      const double* own = values.data() + s * classes;
      outputs.values[static_cast<size_t>(items[s])] =
          regression() ? own[0] : static_cast<double>(std::max_element(own, own + classes) - own);
    }
    const HostView found(kernels, losses(tape, logits, batch));
    for (const double loss : found.span<double>()) outputs.loss += loss;
    arena.reset();
  }
  outputs.loss = comm.all_reduce_sum_value(outputs.loss);
  comm.all_reduce_sum(outputs.values);
  return outputs;
}

Evaluation SentencePrediction::judge(const SentencePairs& data, const BatchList& batches,
                                     const Outputs& outputs) const {
  Evaluation result{.loss = outputs.loss, .sample_size = batches.items(), .metrics = {}};
  std::vector<int32_t> predicted, actual;
  std::vector<double> values, scores;
  for (int64_t b = 0; b < batches.size(); ++b)
    for (const int64_t item : batches[b]) {
      const double value = outputs.values[static_cast<size_t>(item)];
      if (regression()) {
        values.push_back(value);
        scores.push_back(data.score(item));
      } else {
        predicted.push_back(static_cast<int32_t>(value));
        actual.push_back(data.label(item));
      }
    }
  const auto add = [&](SentenceMetric metric, double value) {
    result.metrics.push_back({.name = name_of(metric), .value = value, .higher_is_better = true});
  };
  if (regression()) {
    const double p = pearson(values, scores), s = spearman(values, scores);
    add(SentenceMetric::pearson, p);
    add(SentenceMetric::spearman, s);
    add(SentenceMetric::corr, (p + s) / 2);
    result.metrics.push_back({.name = "loss", .value = result.base2() * std::numbers::ln2});
  } else {
    const ClassScores found = class_scores(predicted, actual, std::ssize(labels_), positive_class(labels_));
    add(SentenceMetric::accuracy, found.accuracy);
    if (labels_.size() == 2) {
      add(SentenceMetric::f1, found.f1);
      add(SentenceMetric::acc_and_f1, found.acc_and_f1());
    }
    add(SentenceMetric::mcc, found.mcc);
    result.metrics.push_back({.name = "loss", .value = result.base2()});
  }
  const SentenceMetric wanted = blueprint().task.sentences.metric;
  if (wanted == SentenceMetric::automatic) return result;
  const auto decisive = std::find_if(result.metrics.begin(), result.metrics.end(),
                                     [&](const Metric& metric) { return metric.name == name_of(wanted); });
  QN_CHECK_USAGE(decisive != result.metrics.end(), "task.metric: {} is for two classes, these data have {}",
                 name_of(wanted), labels_.size());
  std::rotate(result.metrics.begin(), decisive, decisive + 1);
  return result;
}

Evaluation SentencePrediction::evaluate_module(Module& module, const Kernels& kernels, Communicator& comm,
                                               DType dtype) {
  auto* model = dynamic_cast<SentenceEncoder*>(&module);
  QN_ASSERT(model != nullptr, "not an encoder of sentences");
  const SentenceInputs how = inputs(data_config_->tokens_per_sample);
  return judge(*valid_, valid_batches_, run(*model, *valid_, valid_batches_, how, kernels, comm, dtype));
}

void SentencePrediction::check_folder(const SentencePairFolder& folder) const {
  check_dictionary(folder.dictionary, folder.path.string());
  QN_CHECK(folder.regression == regression() && folder.labels == labels_,
           "{} has other labels ({}) than this model ({}): prepare it with --label-dict and the label/dict.txt of the "
           "training data",
           folder.path.string(), folder.regression ? "numbers" : fmt::format("{}", fmt::join(folder.labels, ", ")),
           regression() ? "numbers" : fmt::format("{}", fmt::join(labels_, ", ")));
}

/// Of a table, or of an import, which has seen neither single sentences nor pairs.
Vocabulary SentencePrediction::open_vocabulary(const std::string& path) {
  if (!std::filesystem::exists(std::filesystem::path(path) / "input0") &&
      std::filesystem::exists(std::filesystem::path(path) / "dict.txt"))
    return TextTask::open_vocabulary(path);
  SentencePairFolder folder(path);
  check_folder(folder);
  QN_CHECK(!pairs_ || folder.pairs == *pairs_, "{} holds {}, but this model takes {}", path,
           folder.pairs ? "pairs of sentences" : "single sentences", *pairs_ ? "pairs" : "single ones");
  pairs_ = folder.pairs;
  return {find_tokenizer(folder.path / kTokenizerFolder), std::move(folder.dictionary), {}};
}

EvalReport SentencePrediction::score_data(const EvalConfig& config, const Kernels& kernels, Communicator& comm,
                                          DType dtype) {
  check_no_teacher(config);
  QN_CHECK_USAGE(config.context_window == 0 && config.bpe_marker.empty() && config.break_mode == BreakMode::none,
                 "--context-window, --bpe-marker and --break-mode are for texts, this model scores single sentences");
  const SentencePairFolder folder(config.data);
  check_folder(folder);
  const SentencePairs data(folder, config.split);
  QN_CHECK_USAGE(data.labelled(),
                 "{} has no labels to compare with: `quantnoise predict` prints what the model says of it",
                 data.name());
  const SentenceInputs how = inputs(config.tokens_per_sample.value_or(blueprint().tokens_per_sample));
  const BatchList batches = freeze(
      data, how, {.limits = {.max_tokens = config.max_tokens, .required_multiple = 1}, .over_long = OverLong::error});
  const Evaluation found = judge(data, batches, run(*model_, data, batches, how, kernels, comm, dtype));
  EvalReport report{.amount = group_digits(found.sample_size) + " sentences", .result = found.text(), .fields = {}};
  report.fields.push_back({"sentences", found.sample_size});
  for (const Metric& metric : found.metrics) report.fields.push_back({metric.name, metric.value});
  return report;
}

void SentencePrediction::learn_from(const std::vector<std::string>& files, double weight, const Kernels& kernels) {
  QN_CHECK_USAGE(!regression(), "ipq.teacher: only classes have distributions to learn, these data have numbers");
  const auto check = [&](const RunTask& teacher, const std::string& path) {
    const auto* other = dynamic_cast<const SentencePrediction*>(&teacher);
    QN_CHECK_USAGE(other != nullptr && other->labels_ == labels_,
                   "ipq.teacher: {} is no model of task sentence_prediction with the same classes in the same order",
                   path);
  };
  teachers_ = Teachers(files, weight, blueprint().dictionary_hash, check, kernels);
}

std::vector<int64_t> SentencePrediction::count_tokens() const {
  std::vector<int64_t> counts(static_cast<size_t>(blueprint().vocabulary));
  for (int64_t i = 0; i < train_->size(); ++i) {
    for (const int32_t id : train_->input0(i)) ++counts[static_cast<size_t>(id)];
    if (!train_->pairs()) continue;
    for (const int32_t id : train_->input1(i)) ++counts[static_cast<size_t>(id)];
  }
  return counts;
}

}  // namespace qn
