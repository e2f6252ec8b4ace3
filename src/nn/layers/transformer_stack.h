// Transformer blocks one after another, some of which may share their weights, and be left out in training.
#pragma once

#include <memory>
#include <vector>

#include "nn/layers/layer_drop.h"
#include "nn/layers/transformer_layer.h"

namespace qn {

struct TransformerStackOptions {
  TransformerLayerOptions layer;
  int64_t layers = 1;
  int64_t share_layers = 1;  ///< groups of so many adjacent ones have their weights in common
  double layerdrop = 0.0;
  int64_t first_index = 0;  ///< of the first layer: a module with several stacks numbers their layers through
};

class TransformerStack {
 public:
  /// Layers `scope`.layers.0, ...
  TransformerStack(const Scope& scope, const TransformerStackOptions& options);

  /// x [rows, width] -> the same shape. `inner_states`, if given, receives x and the state after each layer that runs.
  /// `encoded`: see TransformerLayer::forward().
  Var forward(Tape& tape, const Var& x, const RowLayout& rows, std::vector<Tensor>* inner_states = nullptr,
              const Encoded* encoded = nullptr) const;
  /// The same in place, in little memory; see TransformerLayer::update().
  void update(Tape& tape, const Tensor& x, const EqualSequences& rows) const;
  /// Of some rows only: [wanted rows, width]. The last layer computes nothing else.
  Var forward(Tape& tape, const Var& x, const Sequences& sequences, const WantedRows& wanted) const;
  /// The next row of each hypothesis; see TransformerLayer::step(). `memories` has one for each layer.
  Var step(Tape& tape, const Var& x, const DecodingStep& step, std::span<const DecodingMemory> memories) const;
  const std::vector<std::unique_ptr<TransformerLayer>>& layers() const { return layers_; }
  LayerDrop& layer_drop() { return layer_drop_; }

 private:
  /// Layers that share weights are left out together, as pruning takes them away.
  bool runs(const Tape& tape, size_t layer) const {
    return layer_drop_.runs(tape, first_index_ + static_cast<int64_t>(layer) / share_layers_);
  }

  int64_t share_layers_, first_index_;
  std::vector<std::unique_ptr<TransformerLayer>> layers_;
  LayerDrop layer_drop_;
};

}  // namespace qn
