// What a run that has diverged tells its user: where it began, and from where to go on.
#pragma once

#include <filesystem>
#include <functional>
#include <span>
#include <string>

#include "comm/communicator.h"
#include "nn/state_dict.h"
#include "train/task.h"
#include "train/update.h"

namespace qn {

/// Throws qn::Error naming the first tensor of `state`, a snapshot after `update` updates, that is not finite:
/// parameters, buffers and the optimizer's.
void check_finite(const StateDict& state);

/// Where the first values that are not finite came from in the update of `diverged`, by going through its micro-batches
/// once more: "micro-batch 3 of update 17 on rank 1: ...". Collective; the same on every rank.
std::string locate_divergence(const Diverged& diverged, int64_t count, const std::function<MicroBatch(int64_t)>& fetch,
                              UpdateRunner& updates, Communicator& comm);

/// What to do now: names the first of `checkpoints` (newest first) that is intact, of no more than `update` updates and
/// finite in all its values, or says that there is none. For rank 0.
std::string divergence_advice(std::span<const std::filesystem::path> checkpoints, int64_t update);

}  // namespace qn
