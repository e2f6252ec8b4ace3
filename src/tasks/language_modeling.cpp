#include "tasks/language_modeling.h"

#include <cmath>

#include "core/profiler.h"
#include "core/text.h"

namespace qn {

LanguageModeling::LanguageModeling(const RunConfig& config)
    : corpus_(config.data, static_cast<uint64_t>(config.seed)),
      model_(make_language_model(config.model, corpus_.dictionary().size(), config.data.tokens_per_sample)),
      data_path_(config.data.path) {}

std::string LanguageModeling::describe_data(int64_t micro_batches) const {
  return fmt::format("vocabulary {}; {} training tokens in {} blocks, {} updates per epoch of {} micro-batches",
                     group_digits(corpus_.dictionary().size()), group_digits(corpus_.train().stream().total_tokens()),
                     group_digits(corpus_.train().size()),
                     group_digits(corpus_.sampler().updates_per_epoch(micro_batches)), micro_batches);
}

int64_t LanguageModeling::next_update(int64_t micro_batches) {
  groups_ = corpus_.sampler().next_update(micro_batches);
  return static_cast<int64_t>(groups_.size());
}

MicroBatch LanguageModeling::micro_batch(int64_t index, const RandomKey&) {
  const ProfileScope reading(Phase::data, index);
  batch_ = corpus_.train().collate(groups_[static_cast<size_t>(index)]);
  return micro_batch_of(*model_, view_of(batch_), batch_.tokens);
}

MicroBatch LanguageModeling::example(int64_t i, int64_t count) {
  batch_ = corpus_.training_example(i, count);
  return micro_batch_of(*model_, view_of(batch_), batch_.tokens);
}

Score LanguageModeling::score(const Kernels& kernels, Communicator& comm, DType dtype) {
  return validate(*model_, kernels, comm, corpus_.valid(), corpus_.valid_batches(), dtype);
}

Evaluation LanguageModeling::evaluate(const Kernels& kernels, Communicator& comm, DType dtype) {
  const Score result = score(kernels, comm, dtype);
  return {result.loss, result.tokens, {{"loss", result.base2()}, {"ppl", result.perplexity()}}};
}

void LanguageModeling::save(StateDict& state) const {
  const SamplerState& sampler = corpus_.sampler().state();
  state.ints["sampler/epoch"] = sampler.epoch;
  state.ints["sampler/next"] = sampler.next;
  state.ints["sampler/samples"] = sampler.samples;
  state.ints["vocabulary"] = corpus_.dictionary().size();
  state.texts["dictionary_hash"] = hex64(corpus_.dictionary().hash());
  state.texts["data_fingerprint"] = hex64(corpus_.sampler().fingerprint());
}

void LanguageModeling::load(const StateDict& state) {
  QN_CHECK(
      state.text("data_fingerprint") == hex64(corpus_.sampler().fingerprint()),
      "the training batches differ from those of the checkpoint (other data, data.* options or seed): restore them, "
      "or start a new run from these weights with checkpoint.init_from and another checkpoint.dir");
  corpus_.sampler().restore({.epoch = state.integer("sampler/epoch"),
                             .next = state.integer("sampler/next"),
                             .samples = state.integer("sampler/samples")});
}

void LanguageModeling::check_weights(const StateDict& state) const {
  const std::string hash = hex64(corpus_.dictionary().hash());
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

std::vector<float> LanguageModeling::row_importance(const Weight& weight, double exponent) const {
  if (exponent == 0.0 || weight.first_token() < 0) return {};
  if (token_counts_.empty()) token_counts_ = corpus_.train().stream().counts(corpus_.dictionary().size());
  return frequency_importance(weight, token_counts_, exponent);
}

}  // namespace qn
