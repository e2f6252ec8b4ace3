#include "nn/weight.h"

#include <algorithm>

#include "ops/ops.h"

namespace qn {

Weight::Weight(std::string name, std::string group, WeightKind kind, int64_t rows, int64_t cols, Parameter* dense)
    : name_(std::move(name)),
      group_(std::move(group)),
      kind_(kind),
      rows_(rows),
      cols_(cols),
      dense_(dense),
      source_(std::make_unique<DenseSource>(dense)) {}

Var Weight::table(Tape& tape) {
  if (table_pass_ != tape.pass_id()) {
    table_ = source_->value(tape);
    table_pass_ = tape.pass_id();
  }
  return table_;
}

Var Weight::value(Tape& tape) {
  if (value_pass_ != tape.pass_id()) {
    value_ = cast_to_compute(tape, table(tape));
    value_pass_ = tape.pass_id();
  }
  return value_;
}

void Weight::set_source(std::unique_ptr<WeightSource> source, Parameter* dense) {
  source_ = std::move(source);
  dense_ = dense;
  table_pass_ = value_pass_ = 0;
}

Weight* WeightSet::add(ParameterStore& store, std::string name, std::string group, WeightKind kind, int64_t rows,
                       int64_t cols, InitRule init) {
  Parameter* dense = store.add(name, {rows, cols}, init);
  weights_.push_back(std::make_unique<Weight>(std::move(name), std::move(group), kind, rows, cols, dense));
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
    Weight* own = add(store, use.name, use.group, WeightKind::linear, weight->rows(), weight->cols(), {});
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
