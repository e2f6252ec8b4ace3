#include "nn/weight.h"

#include <algorithm>
#include <array>

#include "ops/vision.h"

namespace qn {

Var DenseRepresentation::value(Tape& tape) { return parameter_->var(tape); }

Weight::Weight(std::string name, std::string group, WeightKind kind, Shape shape, Parameter* dense)
    : name_(std::move(name)),
      group_(std::move(group)),
      kind_(kind),
      shape_(shape),
      dense_(dense),
      representation_(std::make_unique<DenseRepresentation>(dense)) {}

Var Weight::table(Tape& tape) {
  if (table_pass_ != tape.pass_id()) {
    table_ = representation_->value(tape);
    table_.value = table_.value.reshaped({rows(), cols()});
    table_pass_ = tape.pass_id();
    if (dense_ == nullptr || table_.value.data != dense_->value.data) tape.note_kept_value();
  }
  return table_;
}

Var Weight::value(Tape& tape) {
  if (value_pass_ != tape.pass_id()) {
    const Var master = table(tape);
    if (tape.recording())
      is_cast_ = dense_ != nullptr && master.value.data == dense_->value.data && master.value.dtype != tape.dtype();
    value_ = tape.recording() && is_cast_ && kept_cast_.defined() ? Var{kept_cast_, master.slot}
                                                                  : cast_to_compute(tape, master);
    value_pass_ = tape.pass_id();
    if (value_.value.data != master.value.data) tape.note_kept_value();
  }
  return value_;
}

Var Weight::linear(Tape& tape, const Var& x, const Var& bias, const ActivationQuantizer* input) {
  Weight* const self = this;
  return linear_concat(tape, x, {&self, 1}, {&bias, 1}, input);
}

/// Single pixels go the way of linear maps where inputs are quantized and a representation has a product of its own.
Var Weight::conv2d(Tape& tape, const Var& x, const ConvShape& shape, const ConvEpilogue& epilogue,
                   const ActivationQuantizer* input) {
  if (!tape.recording() && input != nullptr && shape.pointwise()) {
    QN_ASSERT(!epilogue.scale.defined() && !epilogue.activation, "of a product of codes");
    const Var y = tape.result({shape.batch, shape.height, shape.width, shape.out});
    if (representation_->multiply(tape, y.value, 0, x.value, input)) return y;
  }
  return qn::conv2d(tape, x, value(tape), shape, epilogue);
}

Var Weight::linear_transposed(Tape& tape, const Var& x) {
  if (!tape.recording()) {
    const Var y = tape.result({x.value.rows(), cols()});
    if (representation_->multiply_transposed(tape, y.value, x.value)) return y;
  }
  return qn::linear_transposed(tape, x, value(tape));
}

Var Weight::lookup(Tape& tape, std::span<const int32_t> ids, double scale, int32_t pad_id) {
  if (!tape.recording()) {
    const Var y = tape.result({std::ssize(ids), cols()});
    if (representation_->lookup(tape, y.value, tape.upload(ids), scale)) return y;
  }
  return embedding(tape, table(tape), ids, scale, pad_id);
}

void Weight::set_representation(std::unique_ptr<Representation> representation, Parameter* dense,
                                std::vector<WeightPart> parts) {
  representation_ = std::move(representation);
  dense_ = dense;
  parts_ = std::move(parts);
  table_pass_ = value_pass_ = 0;
}

std::unique_ptr<Representation> Weight::exchange_representation(std::unique_ptr<Representation> other) {
  std::swap(representation_, other);
  table_pass_ = value_pass_ = 0;
  return other;
}

Var linear_concat(Tape& tape, const Var& x, std::span<Weight* const> weights, std::span<const Var> biases,
                  const ActivationQuantizer* input, int64_t columns) {
  constexpr size_t kMaxParts = 4;
  QN_ASSERT(weights.size() <= kMaxParts && (biases.empty() || biases.size() == weights.size()));
  std::array<Var, kMaxParts> values;
  if (tape.recording()) {
    for (size_t i = 0; i < weights.size(); ++i) {
      values[i] = weights[i]->value(tape);
      if (i > 0) weights[i - 1]->set_next_beside(weights[i]);
    }
    return qn::linear_concat(tape, x, std::span<const Var>(values.data(), weights.size()), biases, columns);
  }
  int64_t width = 0;
  for (const Weight* weight : weights) width += weight->rows();
  const Var y = tape.result({x.value.rows(), std::max(width, columns)});
  int64_t column = 0;
  for (size_t i = 0; i < weights.size(); column += weights[i]->rows(), ++i) {
    const Var bias = biases.empty() ? Var{} : biases[i];
    if (!weights[i]->representation().multiply(tape, y.value, column, x.value, input))
      multiply_into(tape, y.value, column, x, weights[i]->value(tape), bias);
    else if (bias.value.defined())
      tape.k.add_bias(y.value, column, bias.value);
  }
  return y;
}

Weight* WeightSet::add(ParameterStore& store, std::string name, std::string group, WeightKind kind, Shape shape,
                       InitRule init) {
  Parameter* dense = store.add(name, shape, init);
  weights_.push_back(std::make_unique<Weight>(std::move(name), std::move(group), kind, shape, dense));
  return weights_.back().get();
}

Weight* WeightSet::find(const std::string& name) const {
  for (const auto& w : weights_)
    if (w->name() == name) return w.get();
  return nullptr;
}

std::vector<std::string> WeightSet::aliases_of(const Weight* weight) const {
  std::vector<std::string> names;
  for (const TiedUse& use : ties_)
    if (*use.place == weight) names.push_back(use.name);
  return names;
}

std::vector<Weight*> WeightSet::untie(ParameterStore& store, Weight* weight) {
  std::vector<Weight*> created;
  for (const TiedUse& use : ties_) {
    if (*use.place != weight) continue;
    QN_ASSERT(weight->dense() != nullptr, "{} is no longer dense", weight->name());
    Weight* own = add(store, use.name, use.group, WeightKind::linear, weight->shape(), {});
    own->dense()->value = weight->dense()->value;  // allocate() copies from here
    *use.place = own;
    created.push_back(own);
  }
  std::erase_if(ties_, [&](const TiedUse& use) {
    return std::find(created.begin(), created.end(), *use.place) != created.end();
  });
  return created;
}

}  // namespace qn
