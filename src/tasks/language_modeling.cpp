#include "tasks/language_modeling.h"

#include <cmath>
#include <memory>
#include <utility>

#include "core/profiler.h"
#include "core/text.h"

namespace qn {

LanguageModeling::LanguageModeling(TextBlueprint plan, std::string data_path)
    : TextTask(std::move(plan), std::move(data_path)),
      model_(make_language_model(blueprint().model, blueprint().vocabulary, blueprint().tokens_per_sample)) {}

LanguageModeling::LanguageModeling(const RunConfig& config)
    : LanguageModeling(config, Corpus(config.data, static_cast<uint64_t>(config.seed))) {}

LanguageModeling::LanguageModeling(const RunConfig& config, Corpus corpus)
    : LanguageModeling(TextBlueprint::of_config(config, corpus.dictionary().size(), corpus.dictionary().hash()),
                       config.data.path) {
  corpus_ = std::move(corpus);
}

std::unique_ptr<RunTask> LanguageModeling::from_config(const RunConfig& config) {
  return std::make_unique<LanguageModeling>(config);
}

std::unique_ptr<RunTask> LanguageModeling::preview(const RunConfig& config, int64_t vocabulary) {
  check_vocabulary_known(config, vocabulary);
  if (vocabulary == 0) return from_config(config);
  return std::unique_ptr<RunTask>(new LanguageModeling(TextBlueprint::of_config(config, vocabulary, 0), {}));
}

std::unique_ptr<RunTask> LanguageModeling::from_checkpoint(const RunConfig& config, const StateDict& state) {
  return std::unique_ptr<RunTask>(new LanguageModeling(TextBlueprint::of_checkpoint(config, state), {}));
}

std::unique_ptr<RunTask> LanguageModeling::from_packed(const SafetensorsReader& file, const std::string& path) {
  return std::unique_ptr<RunTask>(new LanguageModeling(TextBlueprint::of_packed(file, path), {}));
}

void LanguageModeling::open_training() {
  BatchList batches = corpus_->prepare_training(model_->max_positions());  // it opens what the checksums are of
  begin_training(std::move(batches), corpus_->seed(), corpus_->train_checksum(), corpus_->valid_checksum());
}

std::string LanguageModeling::describe_data(int64_t micro_batches) const {
  return corpus_->describe(updates_per_epoch(micro_batches), micro_batches);
}

std::vector<Metric> LanguageModeling::training_metrics(double loss_base2) const {
  return {{.name = "ppl", .value = std::exp2(loss_base2), .digits = 1}};
}

MicroBatch LanguageModeling::micro_batch(int64_t index, const RandomKey&) {
  const ProfileScope reading(Phase::data, index);
  batch_ = corpus_->train().collate(updates().micro_batch(index));
  const TokenBatch batch = view_of(batch_);
  return {[this, batch](Tape& tape) {
            return teachers_.losses(tape, *model_, [&](Module& module, Tape& own) {
              return dynamic_cast<LanguageModel&>(module).losses(own, batch);
            });
          },
          batch_.tokens};
}

MicroBatch LanguageModeling::example(int64_t i, int64_t count) {
  batch_ = corpus_->train().collate(updates().example(i, count));
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

EvalReport LanguageModeling::score_data(const EvalConfig& config, const Kernels& kernels, Communicator& comm,
                                        DType dtype) {
  check_no_teacher(config);
  const Dictionary dictionary = open_dictionary(config.data);
  const TokenStream stream = TokenStream::open(config.data, config.split);
  stream.verify(dictionary);
  const int64_t given = config.tokens_per_sample.value_or(0);
  EvalOptions options{.break_mode = config.break_mode,
                      .tokens_per_sample = given > 0 ? given : blueprint().tokens_per_sample,
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

namespace {

/// What decides which distributions a model's losses are made of.
std::string bands_of(const ModelConfig& model) {
  AdaptiveConfig bands;
  if (model.adaptive.softmax) bands.cutoffs = model.adaptive.cutoffs;
  return dump_config(bands);
}

}  // namespace

void LanguageModeling::learn_from(const std::vector<std::string>& files, double weight, const Kernels& kernels) {
  const auto check = [&](const RunTask& teacher, const std::string& path) {
    const auto* other = dynamic_cast<const LanguageModeling*>(&teacher);
    QN_CHECK_USAGE(other != nullptr, "ipq.teacher: {} is no language model", path);
    QN_CHECK_USAGE(bands_of(other->blueprint().model) == bands_of(blueprint().model),
                   "ipq.teacher: {} divides its words into other bands (model.adaptive.cutoffs, softmax)", path);
  };
  teachers_ = Teachers(files, weight, blueprint().dictionary_hash, check, kernels);
}

std::vector<int64_t> LanguageModeling::count_tokens() const {
  return corpus_->train().stream().counts(corpus_->dictionary().size());
}

}  // namespace qn
