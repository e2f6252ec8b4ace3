#include "tasks/masked_lm.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "core/profiler.h"
#include "core/text.h"
#include "core/work_progress.h"
#include "data/word_beginnings.h"
#include "ops/host_access.h"

namespace qn {
namespace {

constexpr MaskSource kScored{.seed = 1, .epoch = 1};  // what evaluation masks, whatever trained the model

/// Blocks leave room for <s>.
DataConfig with_room(DataConfig data) {
  --data.tokens_per_sample;
  return data;
}

}  // namespace

int64_t vocabulary_with_mask(const Dictionary& dictionary) {
  return dictionary.size() + (dictionary.contains(kMaskSymbol) ? 0 : 1);
}

MaskedLm::MaskedLm(TextBlueprint plan, std::string data_path)
    : TextTask(std::move(plan), std::move(data_path)),
      model_(make_sentence_encoder(blueprint().model, blueprint().vocabulary, blueprint().tokens_per_sample,
                                   {.masked_lm = true})) {}

MaskedLm::MaskedLm(const RunConfig& config)
    : MaskedLm(config, Corpus(with_room(config.data), static_cast<uint64_t>(config.seed))) {}

MaskedLm::MaskedLm(const RunConfig& config, Corpus corpus)
    : MaskedLm(TextBlueprint::of_config(config, vocabulary_with_mask(corpus.dictionary()), corpus.dictionary().hash()),
               config.data.path) {
  corpus_ = std::move(corpus);
  seed_ = config.seed;
  set_masking(corpus_->dictionary(), config.data.path);
}

std::unique_ptr<RunTask> MaskedLm::from_config(const RunConfig& config) { return std::make_unique<MaskedLm>(config); }

std::unique_ptr<RunTask> MaskedLm::preview(const RunConfig& config, int64_t vocabulary) {
  check_vocabulary_known(config, vocabulary);
  if (vocabulary == 0) return from_config(config);
  return std::unique_ptr<RunTask>(new MaskedLm(TextBlueprint::of_config(config, vocabulary + 1, 0), {}));
}

std::unique_ptr<RunTask> MaskedLm::from_checkpoint(const RunConfig& config, const StateDict& state) {
  return std::unique_ptr<RunTask>(new MaskedLm(TextBlueprint::of_checkpoint(config, state), {}));
}

std::unique_ptr<RunTask> MaskedLm::from_packed(const SafetensorsReader& file, const std::string& path) {
  return std::unique_ptr<RunTask>(new MaskedLm(TextBlueprint::of_packed(file, path), {}));
}

namespace {

std::vector<bool> beginnings(const Dictionary& dictionary, const std::string& folder, int64_t vocabulary) {
  std::vector<bool> begins = word_beginnings(folder, dictionary);
  begins.resize(static_cast<size_t>(vocabulary), true);  // <mask>
  return begins;
}

}  // namespace

void MaskedLm::set_masking(const Dictionary& dictionary, const std::string& folder) {
  const MaskedLmConfig& config = blueprint().task.masked_lm;
  const auto vocabulary = static_cast<size_t>(blueprint().vocabulary);
  std::vector<double> weights(vocabulary, 1.0);
  if (config.freq_weighted_replacement)
    for (int32_t id = 0; id < dictionary.size(); ++id)
      weights[static_cast<size_t>(id)] = static_cast<double>(dictionary.count(id));
  std::fill_n(weights.begin(), kSpecialCount, 0.0);
  const int32_t mask =
      dictionary.contains(kMaskSymbol) ? dictionary.index(kMaskSymbol) : static_cast<int32_t>(dictionary.size());
  masking_.emplace(
      MaskingOptions{.mask_prob = config.mask_prob,
                     .leave_unmasked_prob = config.leave_unmasked_prob,
                     .random_token_prob = config.random_token_prob,
                     .mask_id = mask},
      weights, config.mask_whole_words ? beginnings(dictionary, folder, blueprint().vocabulary) : std::vector<bool>());
}

void MaskedLm::open_training() {
  BatchList batches = corpus_->prepare_training(model_->max_positions(), 1);  // it opens what the checksums are of
  begin_training(std::move(batches), corpus_->seed(), corpus_->train_checksum(), corpus_->valid_checksum());
}

std::string MaskedLm::describe_data(int64_t micro_batches) const {
  return corpus_->describe(updates_per_epoch(micro_batches), micro_batches);
}

std::vector<Metric> MaskedLm::training_metrics(double loss_base2) const {
  return {{.name = "ppl", .value = std::exp2(loss_base2), .digits = 1}};
}

MaskedLm::MaskedBatch MaskedLm::masked_batch(const TokenBlocks& blocks, std::span<const int64_t> items,
                                             const MaskSource& masks) const {
  MaskedBatch batch;
  std::vector<int32_t> tokens;
  for (const int64_t item : items) {
    tokens.assign(static_cast<size_t>(blocks.length(item)) + 1, kBosId);
    blocks.fill_target(item, tokens.data() + 1);
    const Masking::Item masked = masking_->masked(tokens, masks.seed, masks.epoch, item);
    const auto first = static_cast<int32_t>(batch.sentences.tokens.size());
    for (size_t i = 0; i < tokens.size(); ++i)
      if (masked.target[i] != kPadId) {
        batch.rows.push_back(first + static_cast<int32_t>(i));
        batch.targets.push_back(masked.target[i]);
      }
    batch.sentences.add(masked.source);
  }
  return batch;
}

/// Where graphs are recorded, the head's rows are filled up with rows of nothing, so that few different shapes exist.
Tensor MaskedLm::losses(SentenceEncoder& model, Tape& tape, const MaskedBatch& batch) {
  if (batch.rows.empty()) {
    const Tensor none = tape.arena.tensor({1}, DType::f64);
    tape.k.fill(none, 0.0);
    return none;
  }
  std::vector<int32_t> rows = batch.rows, targets = batch.targets;
  const auto multiple = static_cast<size_t>(tape.pass().row_multiple);
  rows.resize((rows.size() + multiple - 1) / multiple * multiple, -1);
  targets.resize(rows.size(), -1);
  return model.masked_losses(tape, view_of(batch.sentences), rows, targets);
}

MicroBatch MaskedLm::micro_batch(int64_t index, const RandomKey&) {
  const ProfileScope reading(Phase::data, index);
  batch_ = masked_batch(corpus_->train().blocks(), updates().micro_batch(index),
                        {.seed = seed_, .epoch = updates().drawn_epoch()});
  return ready();
}

MicroBatch MaskedLm::ready() {
  return {[this](Tape& tape) {
            return teachers_.losses(tape, *model_, [this](Module& module, Tape& own) {
              return losses(dynamic_cast<SentenceEncoder&>(module), own, batch_);
            });
          },
          std::ssize(batch_.rows), std::ssize(batch_.sentences.tokens)};
}

MicroBatch MaskedLm::example(int64_t i, int64_t count) {
  batch_ = masked_batch(corpus_->train().blocks(), updates().example(i, count), kScored);
  return ready();
}

MaskedLm::Sums MaskedLm::score(SentenceEncoder& model, const TokenBlocks& blocks, const BatchList& batches,
                               const Kernels& kernels, Communicator& comm, DType dtype) const {
  const ProfileScope phase(Phase::validation);
  Arena arena(*kernels.memory);
  Tape tape(kernels, arena, dtype, {});
  Sums sums;
  for (int64_t i = comm.rank(); i < batches.size(); i += comm.size()) {
    tell_work(i, batches.size());
    const MaskedBatch batch = masked_batch(blocks, batches[i], kScored);
    tape.restart({});
    const HostView values(kernels, losses(model, tape, batch));
    for (const double loss : values.span<double>()) sums.loss += loss;
    sums.masked += std::ssize(batch.rows);
    arena.reset();
  }
  sums.loss = comm.all_reduce_sum_value(sums.loss);
  sums.masked = comm.all_reduce_sum_value(sums.masked);
  QN_CHECK(sums.masked > 0, "no token is masked: there is too little text to score");
  return sums;
}

Evaluation MaskedLm::evaluate_module(Module& module, const Kernels& kernels, Communicator& comm, DType dtype) {
  auto* model = dynamic_cast<SentenceEncoder*>(&module);
  QN_ASSERT(model != nullptr, "not an encoder of sentences");
  const Sums sums = score(*model, corpus_->valid().blocks(), corpus_->valid_batches(), kernels, comm, dtype);
  Evaluation result{.loss = sums.loss, .sample_size = sums.masked, .metrics = {}};
  result.metrics = {{.name = "loss", .value = result.base2()},
                    {.name = "ppl", .value = std::exp2(result.base2()), .title = "perplexity", .digits = 2}};
  return result;
}

EvalReport MaskedLm::score_data(const EvalConfig& config, const Kernels& kernels, Communicator& comm, DType dtype) {
  check_no_teacher(config);
  QN_CHECK_USAGE(config.context_window == 0 && config.bpe_marker.empty(),
                 "--context-window and --bpe-marker are for models that read a text from left to right");
  const Dictionary dictionary = open_dictionary(config.data);
  auto stream = std::make_shared<TokenStream>(TokenStream::open(config.data, config.split));
  stream->verify(dictionary);
  const int64_t length = config.tokens_per_sample.value_or(blueprint().tokens_per_sample);
  QN_CHECK_USAGE(length >= 2, "--tokens-per-sample must be at least 2, got {}", length);
  const LmDataset data(std::move(stream), {config.break_mode, length - 1});
  set_masking(dictionary, config.data);
  std::vector<int32_t> lengths = data.lengths();
  for (int32_t& n : lengths) ++n;
  const BatchList batches = freeze_batches(config.split, lengths,
                                           {.limits = {.max_tokens = config.max_tokens, .required_multiple = 1},
                                            .max_positions = model_->max_positions(),
                                            .over_long = OverLong::error});
  const Sums sums = score(*model_, data.blocks(), batches, kernels, comm, dtype);
  const double base2 = sums.loss / static_cast<double>(sums.masked) / std::numbers::ln2;
  return {.amount = group_digits(sums.masked) + " masked tokens",
          .result = fmt::format("loss {:.4f} bits, perplexity {:.2f}", base2, std::exp2(base2)),
          .fields = {{"masked_tokens", sums.masked}, {"loss_base2", base2}, {"perplexity", std::exp2(base2)}}};
}

void MaskedLm::learn_from(const std::vector<std::string>& files, double weight, const Kernels& kernels) {
  const auto check = [](const RunTask& teacher, const std::string& path) {
    QN_CHECK_USAGE(dynamic_cast<const MaskedLm*>(&teacher) != nullptr, "ipq.teacher: {} is no masked language model",
                   path);
  };
  teachers_ = Teachers(files, weight, blueprint().dictionary_hash, check, kernels);
}

std::vector<int64_t> MaskedLm::count_tokens() const {
  std::vector<int64_t> counts = corpus_->train().stream().counts(corpus_->dictionary().size());
  counts.resize(static_cast<size_t>(blueprint().vocabulary));
  return counts;
}

}  // namespace qn
