// A plan for people: what happens to every weight and every activation of a module.
#pragma once

#include <string>

#include "compress/plan.h"
#include "nn/module.h"

namespace qn {

/// Fixed-width tables: of every weight its noise, its stage and quantizer, bits per weight and bytes in a packed file,
/// and whether it is represented by codes already; then the parts that share another's weights; then of every place of
/// activations that is quantized, its bits.
std::string explain(const QuantizationPlan& plan, const Module& module);
/// The same as JSON text.
std::string explain_json(const QuantizationPlan& plan, const Module& module);

}  // namespace qn
