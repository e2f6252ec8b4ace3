#include "models/decoding_cache.h"

#include <numeric>

namespace qn {
namespace {

constexpr int64_t kGrowth = 16;  // places are added in runs of so many

bool is_identity(std::span<const int32_t> parents) {
  for (size_t i = 0; i < parents.size(); ++i)
    if (parents[i] != static_cast<int32_t>(i)) return false;
  return true;
}

}  // namespace

void DecodingCache::rearrange(Tape& tape, std::span<const int32_t> parents, int64_t stride) {
  const auto rows = static_cast<int64_t>(parents.size()) * stride;
  std::vector<int32_t> from(static_cast<size_t>(rows), -1);  // zeros where there is nothing yet
  for (size_t i = 0; i < parents.size(); ++i)
    std::iota(from.begin() + static_cast<int64_t>(i) * stride,
              from.begin() + static_cast<int64_t>(i) * stride + length_, static_cast<int32_t>(parents[i] * stride_));
  const int32_t* ids = tape.upload(from);
  for (Layer& layer : layers_) {
    if (!layer.other.defined() || layer.other.view().rows() < rows)
      layer.other = OwnedTensor({rows, 2 * width_}, tape.dtype(), *tape.k.memory);
    const Tensor to{layer.other.view().data, {rows, 2 * width_}, tape.dtype()};
    if (length_ == 0)
      tape.k.fill(to, 0.0);
    else
      tape.k.gather_rows(to, layer.memory.own, ids, 1.0);
    std::swap(layer.keys, layer.other);
    layer.memory.own = to;
  }
  stride_ = stride;
}

DecodingStep DecodingCache::advance(Tape& tape, std::span<const int32_t> parents) {
  const auto count = static_cast<int64_t>(parents.size());
  if (length_ == stride_)
    rearrange(tape, parents, stride_ + kGrowth);
  else if (parents.size() != hypotheses_ || !is_identity(parents))
    rearrange(tape, parents, stride_);
  hypotheses_ = parents.size();
  ++length_;
  rows_.resize(parents.size());
  std::iota(rows_.begin(), rows_.end(), 0);
  ones_.assign(parents.size(), 1);
  begins_.resize(parents.size());
  lengths_.assign(parents.size(), static_cast<int32_t>(length_));
  places_.resize(parents.size());
  for (int64_t i = 0; i < count; ++i) {
    begins_[static_cast<size_t>(i)] = static_cast<int32_t>(i * stride_);
    places_[static_cast<size_t>(i)] = static_cast<int32_t>(i * stride_ + length_ - 1);
  }
  memories_.clear();
  for (const Layer& layer : layers_) memories_.push_back(layer.memory);
  return {.tokens = {rows_, ones_, 1},
          .places = places_,
          .places_so_far = {begins_, lengths_, length_},
          .hypotheses = {},
          .sentences = {}};
}

}  // namespace qn
