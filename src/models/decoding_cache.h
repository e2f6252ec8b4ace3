// Keys and values of hypotheses that grow by tokens, each from one of those before.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "nn/layers/transformer_layer.h"

namespace qn {

class DecodingCache {
 public:
  DecodingCache(int64_t layers, int64_t width) : width_(width), layers_(static_cast<size_t>(layers)) {}

  /// Keys and values of the encoder's result for one layer; they must live as long as the cache.
  void set_encoded(int64_t layer, const Tensor& keys) { layers_[static_cast<size_t>(layer)].memory.encoded = keys; }

  /// Makes room for counts[i] further tokens of hypothesis i, which continues what was number parents[i] in the call
  /// before or, with -1, begins anew. The rows of the step are those tokens, of one hypothesis after the other; each
  /// sees the ones before it and itself. What it gives and memories() stay until the next call; `hypotheses` and
  /// `sentences` are the caller's to add.
  DecodingStep advance(Tape& tape, std::span<const int32_t> parents, std::span<const int32_t> counts);
  std::span<const DecodingMemory> memories() const { return memories_; }

  /// Tokens of each hypothesis, those of the last advance() included; and the places of the step's rows among these,
  /// from 0.
  std::span<const int32_t> lengths() const { return lengths_; }
  std::span<const int32_t> positions() const { return positions_; }

 private:
  struct Layer {
    OwnedTensor keys, other;  // a copy is made from one into the other
    DecodingMemory memory;
  };
  /// Moves every hypothesis' rows to where `parents` say, `stride` places apart. `kept`: how many rows of each.
  void rearrange(Tape& tape, std::span<const int32_t> parents, std::span<const int32_t> kept, int64_t stride);

  int64_t width_, stride_ = 0;
  std::vector<Layer> layers_;
  std::vector<DecodingMemory> memories_;
  std::vector<int32_t> lengths_, positions_, rows_, ones_, places_, begins_, seen_;
};

}  // namespace qn
