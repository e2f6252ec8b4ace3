#include "train/stage_model.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>

#include "compress/ipq.h"

namespace qn {
namespace {

constexpr const char *kActive = "stage_model/active", *kAveraged = "stage_model/averaged_updates",
                     *kBest = "stage_model/best/", *kBestUpdate = "stage_model/best_update",
                     *kBestMetric = "stage_model/best_metric", *kBestIsHigh = "stage_model/best_is_high";

const ModelAverage::Prefixes kAverage{"stage_model/average/", "stage_model/average_buffers/"};

bool better(const Metric& a, const Metric& b) { return a.higher_is_better ? a.value > b.value : a.value < b.value; }

}  // namespace

void StageModel::begin() {
  active_ = true;
  best_.reset();
  updates_ = 0;
  average_.reset();
  if (decay_ > 0.0) average_.emplace(module_);
}

void StageModel::add_update() {
  if (!average_) return;
  const auto n = static_cast<double>(updates_++);
  average_->add(std::min(decay_, (1.0 + n) / (10.0 + n)));
}

void StageModel::record(const Evaluation& found, int64_t update) {
  if (!active_ || !keep_best_ || !found.finite()) return;
  if (best_ && !better(found.decisive(), best_->metric)) return;
  best_ = Best{update, found.decisive(), found, {}};
  save_module(module_, best_->state);
  save_codes(module_, best_->state);
}

void StageModel::finish(std::optional<Evaluation>& evaluation) {
  if (!active_) return;
  if (average_) average_->exchange();
  active_ = false;
  average_.reset();
  if (!best_) return;
  const Best best = std::move(*best_);
  best_.reset();
  load_codes(module_, best.state);
  load_module(module_, best.state);
  spdlog::info("the stage's best model is that after update {}: {}", best.update, text_of(best.metric));
  evaluation = best.evaluation;
}

void StageModel::save(StateDict& state) const {
  state.ints[kActive] = active_ ? 1 : 0;
  if (average_) {
    state.ints[kAveraged] = updates_;
    average_->save(kAverage, state);
  }
  if (!best_) return;
  state.ints[kBestUpdate] = best_->update;
  state.ints[kBestIsHigh] = best_->metric.higher_is_better ? 1 : 0;
  state.floats[kBestMetric] = best_->metric.value;
  for (const auto& [name, tensor] : best_->state.tensors) state.tensors[kBest + name] = copy_of(tensor.view());
}

void StageModel::load(const StateDict& state) {
  const auto entry = state.ints.find(kActive);
  if (entry == state.ints.end() || entry->second == 0) return;
  begin();
  if (average_ && state.ints.contains(kAveraged)) {
    updates_ = state.integer(kAveraged);
    average_->load(kAverage, state);
  }
  if (!keep_best_ || !state.ints.contains(kBestUpdate)) return;
  best_ = Best{state.integer(kBestUpdate),
               {.name = "best", .value = state.real(kBestMetric), .higher_is_better = state.integer(kBestIsHigh) != 0},
               {},
               {}};
  const std::string prefix = kBest;
  for (const auto& [name, tensor] : state.tensors)
    if (name.starts_with(prefix)) best_->state.tensors[name.substr(prefix.size())] = copy_of(tensor.view());
}

}  // namespace qn
