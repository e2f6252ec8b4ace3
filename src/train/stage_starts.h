// When the stages of a run of `quantize` began: what a run that goes on must not change.
#pragma once

#include <string>

#include "nn/state_dict.h"
#include "train/finetuning.h"

namespace qn {

/// As an entry that check_stage_starts() reads.
void save_stage_starts(const Finetuning& finetuning, int64_t stages, StateDict& state);

/// `state` is of a run that is to go on with this finetuning, or empty. Throws qn::UsageError naming the key of
/// `config` where a stage that is over would get another number of updates, or the one under way no more than it has
/// had.
void check_stage_starts(const Finetuning& finetuning, int64_t stages, const QuantizeConfig& config,
                        const StateDict& state);

/// Throws qn::UsageError where blocks are to move from now on (ipq.reassign_updates), and the checkpoint holds no
/// latent values of quantized weights whose codes can.
void check_latent_values(const QuantizationPlan& plan, const QuantizeConfig& config, const StateDict& state);

}  // namespace qn
