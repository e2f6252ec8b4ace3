// Keys and values of hypotheses that grow token by token, each from one of those before.
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

  /// Makes room for the next token of hypotheses of which number i continues what was number parents[i] (0 for the
  /// first token). What it gives and memories() stay until the next call; hypotheses and sentences are the caller's to
  /// add.
  DecodingStep advance(Tape& tape, std::span<const int32_t> parents);
  std::span<const DecodingMemory> memories() const { return memories_; }

  int64_t length() const { return length_; }  ///< tokens of each hypothesis, that of the last advance() included

 private:
  struct Layer {
    OwnedTensor keys, other;  // a copy is made from one into the other
    DecodingMemory memory;
  };
  /// Moves every hypothesis' rows to where `parents` say, `stride` places apart.
  void rearrange(Tape& tape, std::span<const int32_t> parents, int64_t stride);

  int64_t width_, stride_ = 0, length_ = 0;
  size_t hypotheses_ = 0;
  std::vector<Layer> layers_;
  std::vector<DecodingMemory> memories_;
  std::vector<int32_t> rows_, ones_, places_, begins_, lengths_;
};

}  // namespace qn
