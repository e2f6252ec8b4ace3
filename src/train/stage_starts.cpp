#include "train/stage_starts.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "compress/kmeans_state.h"
#include "compress/representation.h"
#include "core/error.h"

namespace qn {
namespace {

constexpr const char* kStarts = "finetuning/starts";

int64_t stages_done(const StateDict& state) {
  const auto entry = state.ints.find("ipq/stages_done");
  return entry == state.ints.end() ? 0 : entry->second;
}

std::vector<int64_t> starts_of(const Finetuning& finetuning, int64_t stages) {
  std::vector<int64_t> starts;
  for (int64_t stage = 0; stage <= stages; ++stage) starts.push_back(finetuning.start_of(stage));
  return starts;
}

/// Whether the past is the same by `now` as by `was`, and the stage under way has not come to its end.
bool continues(const std::vector<int64_t>& was, const std::vector<int64_t>& now, int64_t done, int64_t update) {
  const auto end = static_cast<size_t>(done);
  const bool over = update >= was[end] && done + 1 < std::ssize(was);
  return std::equal(was.begin(), was.begin() + done, now.begin()) &&
         (now[end] == was[end] || (!over && update < now[end]));
}

}  // namespace

void save_stage_starts(const Finetuning& finetuning, int64_t stages, StateDict& state) {
  state.tensors[kStarts] = tensor_of(starts_of(finetuning, stages), {stages + 1});
}

/// Checkpoints of older programs do not say when stages began; there, an update that is none of the stage's tells.
void check_stage_starts(const Finetuning& finetuning, int64_t stages, const QuantizeConfig& config,
                        const StateDict& state) {
  const int64_t done = stages_done(state);
  if (done < 1 || done > stages) return;
  const std::vector<int64_t> now = starts_of(finetuning, stages);
  const int64_t update = state.integer("update");
  bool same = now[static_cast<size_t>(done - 1)] <= update && update <= now[static_cast<size_t>(done)];
  if (const auto stored = state.tensors.find(kStarts); stored != state.tensors.end()) {
    const std::vector<int64_t> was = values_of<int64_t>(stored->second.view());
    QN_CHECK(was.size() == now.size(), "the checkpoint's entry {} has {} numbers, not {}: it is damaged", kStarts,
             was.size(), now.size());
    same = continues(was, now, done, update);
  }
  if (same) return;
  std::vector<int64_t> updates;
  for (size_t stage = 1; stage < now.size(); ++stage) updates.push_back(now[stage] - now[stage - 1]);
  fail_usage(
      "ipq.{}: the run has quantized {} of {} stages and is at update {}, which does not go with stages of {} updates: "
      "those that are over keep their numbers, and the one under way must get more than it has had. Give the old "
      "numbers (one for each stage: those of stages to come are free), start anew with --fresh, or use another "
      "checkpoint.dir",
      config.updates_per_stage ? "updates_per_stage" : "stage_updates", done, stages, update, fmt::join(updates, ", "));
}

void check_latent_values(const QuantizationPlan& plan, const QuantizeConfig& config, const StateDict& state) {
  if (config.reassign_updates == 0) return;
  const int64_t done = std::min(stages_done(state), plan.stages);
  for (int64_t stage = 0; stage < done; ++stage)
    for (const WeightPlan& weight : plan.stage(stage)) {
      if (!weight.quantizer->kmeans()) continue;
      QN_CHECK_USAGE(
          state.tensors.contains(fmt::format("parameters/{}", part_name(weight.name, kLatent))),
          "ipq.reassign_updates: the run has quantized {} with 0, and its checkpoint holds no values by which blocks "
          "could move: go on with ipq.reassign_updates=0, start anew with --fresh, or use another checkpoint.dir",
          weight.name);
    }
}

}  // namespace qn
