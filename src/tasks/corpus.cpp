#include "tasks/corpus.h"

#include <spdlog/spdlog.h>

#include <filesystem>

#include "core/profiler.h"
#include "core/text.h"

namespace qn {

Corpus::Corpus(const DataConfig& config, uint64_t seed) : config_(config), seed_(seed) {
  QN_CHECK_USAGE(
      !config.path.empty(),
      "data.path is not set: name a folder made by `quantnoise prepare`, e.g. --set data.path=data/wikitext-2");
  const std::filesystem::path folder(config.path);
  QN_CHECK_USAGE(
      std::filesystem::is_directory(folder),
      "data.path: there is no folder {}; make one with `quantnoise prepare --train TEXT --valid TEXT --out {}`",
      config.path, config.path);
  dictionary_ = Dictionary::load(folder / "dict.txt");
}

std::unique_ptr<LmDataset> Corpus::open(const std::string& split, uint64_t& checksum) const {
  auto stream = std::make_shared<TokenStream>(TokenStream::open(config_.path, split));
  checksum = stream->verify(dictionary_);
  return std::make_unique<LmDataset>(std::move(stream), BlockOptions{config_.break_mode, config_.tokens_per_sample});
}

BatchList Corpus::prepare_training(int64_t max_positions, int32_t added) {
  const ProfileScope phase(Phase::data);
  FreezeOptions options{.limits = {.max_tokens = config_.max_tokens,
                                   .max_items = config_.max_sentences,
                                   .required_multiple = config_.required_multiple},
                        .max_positions = max_positions,
                        .seed = seed_};
  const auto freeze = [&](const std::string& name, const LmDataset& data) {
    std::vector<int32_t> lengths = data.lengths();
    for (int32_t& length : lengths) length += added;
    return freeze_batches(name, lengths, options);
  };
  train_ = open("train", train_checksum_);
  BatchList batches = freeze("train", *train_);
  valid_ = open(config_.valid, valid_checksum_);
  options.over_long = config_.skip_invalid_size_valid ? OverLong::warn_and_drop : OverLong::error;
  valid_batches_ = freeze(config_.valid, *valid_);
  return batches;
}

std::string Corpus::describe(int64_t updates_per_epoch, int64_t micro_batches) const {
  return fmt::format("vocabulary {}; {} training tokens in {} blocks, {} updates per epoch of {} micro-batches",
                     group_digits(dictionary_.size()), group_digits(train_->stream().total_tokens()),
                     group_digits(train_->size()), group_digits(updates_per_epoch), micro_batches);
}

}  // namespace qn
