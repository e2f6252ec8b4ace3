#include "nn/layers/transformer_stack.h"

namespace qn {

TransformerStack::TransformerStack(const Scope& scope, const TransformerStackOptions& options)
    : share_layers_(options.share_layers), first_index_(options.first_index), layer_drop_(options.layerdrop) {
  const auto layer_scope = [&](int64_t i) { return scope.in(fmt::format("layers.{}", i)); };
  for (int64_t i = 0; i < options.layers; ++i) {
    const auto index = static_cast<uint64_t>(options.first_index + i);
    const int64_t owner = i - i % options.share_layers;
    layers_.push_back(i == owner
                          ? std::make_unique<TransformerLayer>(layer_scope(i), index, options.layer)
                          : std::make_unique<TransformerLayer>(
                                layer_scope(i), index, *layers_[static_cast<size_t>(owner)], layer_scope(owner)));
  }
}

Var TransformerStack::forward(Tape& tape, const Var& input, const RowLayout& rows, std::vector<Tensor>* inner_states,
                              const Encoded* encoded) const {
  Var x = input;
  if (inner_states != nullptr) inner_states->push_back(x.value);
  for (size_t i = 0; i < layers_.size(); ++i) {
    if (!runs(tape, i)) continue;
    x = layers_[i]->forward(tape, x, rows, encoded);
    if (inner_states != nullptr) inner_states->push_back(x.value);
  }
  return x;
}

void TransformerStack::update(Tape& tape, const Tensor& x, const EqualSequences& rows) const {
  for (size_t i = 0; i < layers_.size(); ++i)
    if (runs(tape, i)) layers_[i]->update(tape, x, rows);
}

Var TransformerStack::forward(Tape& tape, const Var& input, const Sequences& sequences,
                              const WantedRows& wanted) const {
  const size_t last = layers_.size() - 1;
  Var x = input;
  for (size_t i = 0; i < last; ++i)
    if (runs(tape, i)) x = layers_[i]->forward(tape, x, sequences);
  return runs(tape, last) ? layers_[last]->forward(tape, x, sequences, wanted) : select_rows(tape, x, wanted.rows);
}

Var TransformerStack::step(Tape& tape, const Var& input, const DecodingStep& step,
                           std::span<const DecodingMemory> memories) const {
  QN_ASSERT(memories.size() == layers_.size());
  Var x = input;
  for (size_t i = 0; i < layers_.size(); ++i) x = layers_[i]->step(tape, x, step, memories[i]);
  return x;
}

}  // namespace qn
