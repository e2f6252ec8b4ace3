#include "data/lm_dataset.h"

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace qn {

LmDataset::LmDataset(std::shared_ptr<const TokenStream> stream, const BlockOptions& options, int32_t pad)
    : stream_(std::move(stream)), blocks_(*stream_, options), pad_(pad) {}

std::vector<int32_t> LmDataset::lengths() const {
  std::vector<int32_t> lengths(static_cast<size_t>(size()));
  for (int64_t i = 0; i < size(); ++i) lengths[static_cast<size_t>(i)] = static_cast<int32_t>(blocks_.length(i));
  return lengths;
}

Batch LmDataset::collate(std::span<const int64_t> items) const {
  Batch batch;
  batch.rows = std::ssize(items);
  for (const int64_t item : items) batch.cols = std::max(batch.cols, blocks_.length(item));
  const auto elements = static_cast<size_t>(batch.rows * batch.cols);
  batch.source.assign(elements, pad_);
  batch.target.assign(elements, pad_);
  for (int64_t row = 0; row < batch.rows; ++row) {
    const int64_t item = items[static_cast<size_t>(row)];
    blocks_.fill_source(item, batch.source.data() + row * batch.cols);
    blocks_.fill_target(item, batch.target.data() + row * batch.cols);
  }
  batch.tokens = std::ssize(batch.target) - std::count(batch.target.begin(), batch.target.end(), pad_);
  return batch;
}

}  // namespace qn
