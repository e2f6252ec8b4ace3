#include "models/decoding_cache.h"

#include <algorithm>
#include <numeric>

namespace qn {
namespace {

constexpr int64_t kGrowth = 16;  // places are added in runs of so many

/// Hypotheses that begin anew may stay where they are.
bool stay(std::span<const int32_t> parents) {
  for (size_t i = 0; i < parents.size(); ++i)
    if (parents[i] >= 0 && parents[i] != static_cast<int32_t>(i)) return false;
  return true;
}

}  // namespace

void DecodingCache::rearrange(Tape& tape, std::span<const int32_t> parents, std::span<const int32_t> kept,
                              int64_t stride) {
  const auto rows = static_cast<int64_t>(parents.size()) * stride;
  std::vector<int32_t> from(static_cast<size_t>(rows), -1);  // zeros where there is nothing yet
  for (size_t i = 0; i < parents.size(); ++i) {
    const auto begin = from.begin() + static_cast<int64_t>(i) * stride;
    if (kept[i] > 0) std::iota(begin, begin + kept[i], static_cast<int32_t>(parents[i] * stride_));
  }
  const int32_t* ids = tape.upload(from);
  for (Layer& layer : layers_) {
    if (!layer.other.defined() || layer.other.view().rows() < rows)
      layer.other = OwnedTensor({rows, 2 * width_}, tape.dtype(), *tape.k.memory);
    const Tensor to{layer.other.view().data, {rows, 2 * width_}, tape.dtype()};
    if (stride_ == 0)
      tape.k.fill(to, 0.0);
    else
      tape.k.gather_rows(to, layer.memory.own, ids, 1.0);
    std::swap(layer.keys, layer.other);
    layer.memory.own = to;
  }
  stride_ = stride;
}

DecodingStep DecodingCache::advance(Tape& tape, std::span<const int32_t> parents, std::span<const int32_t> counts) {
  QN_ASSERT(parents.size() == counts.size() && !parents.empty());
  std::vector<int32_t> kept, lengths;
  for (size_t i = 0; i < parents.size(); ++i) {
    kept.push_back(parents[i] < 0 ? 0 : lengths_[static_cast<size_t>(parents[i])]);
    lengths.push_back(kept.back() + counts[i]);
  }
  const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
  const int64_t stride = longest <= stride_ ? stride_ : (longest + kGrowth - 1) / kGrowth * kGrowth;
  if (stride != stride_ || parents.size() != lengths_.size() || !stay(parents)) rearrange(tape, parents, kept, stride);
  positions_.clear(), places_.clear(), begins_.clear(), seen_.clear();
  for (size_t i = 0; i < parents.size(); ++i)
    for (int32_t position = kept[i]; position < lengths[i]; ++position) {
      const auto begin = static_cast<int32_t>(static_cast<int64_t>(i) * stride_);
      positions_.push_back(position);
      places_.push_back(begin + position);
      begins_.push_back(begin);
      seen_.push_back(position + 1);
    }
  lengths_ = std::move(lengths);
  rows_.resize(positions_.size());
  std::iota(rows_.begin(), rows_.end(), 0);
  ones_.assign(positions_.size(), 1);
  memories_.clear();
  for (const Layer& layer : layers_) memories_.push_back(layer.memory);
  return {.tokens = {rows_, ones_, 1},
          .places = places_,
          .places_so_far = {begins_, seen_, longest},
          .hypotheses = {},
          .sentences = {}};
}

}  // namespace qn
