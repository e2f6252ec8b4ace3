// Whether a packed file can hold what a module has.
#pragma once

#include "compress/plan.h"
#include "compress/size_report.h"
#include "nn/module.h"

namespace qn {

/// Throws qn::Error naming the first tensor that a packed file could not hold, its value and the remedy: values that
/// are not finite, or too large for the type that they are stored in. Warns of tensors that would become all zeros.
void check_storable(const Module& module, const PackedStorage& storage);

/// The same for a module that is yet to be quantized by `plan`: what stays dense is looked at, and whether the rest is
/// finite.
void check_storable(const Module& module, const QuantizationPlan& plan);

}  // namespace qn
