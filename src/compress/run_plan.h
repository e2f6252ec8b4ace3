// The plan of a run, from its configuration or from its checkpoint.
#pragma once

#include <string>

#include "compress/ipq_config.h"
#include "compress/noise.h"
#include "compress/plan.h"

namespace qn {

/// What a run does to a module's weights: noise, and with `ipq` stages. `later` is how the trained model will be
/// quantized, for noise that imitates it. Throws qn::Error for patterns that match nothing etc.
QuantizationPlan make_run_plan(const Module& module, const NoiseConfig& noise, const IpqConfig* ipq,
                               const IpqConfig& later = {});

/// The plan of a run that goes on. Weights are quantized as `stored`, the plan in the run's checkpoint, says: files
/// that the configuration names may be gone, and if they plan otherwise by now a warning says for which weights. Noise
/// is that of the configuration. Throws qn::Error when `stored` is for another model.
QuantizationPlan resume_run_plan(const std::string& stored, const Module& module, const NoiseConfig& noise,
                                 const IpqConfig* ipq, const IpqConfig& later = {});

PackedStorage packed_storage(const IpqConfig& config);  ///< ipq.centroids, ipq.dense, ipq.norms

}  // namespace qn
