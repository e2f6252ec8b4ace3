// Fixed-width activations: ranges are observed while training (or calibrating), averaged over updates, saved in
// buffers, and frozen in evaluation (reference 2.5, with ranges that survive).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "nn/module.h"

namespace qn {

/// One place whose activations are quantized.
struct ActivationPlan {
  std::string name;  ///< of the ActivationPoint
  int bits = 8;      ///< 2 to 8
  bool operator==(const ActivationPlan&) const = default;
};

/// What is saved of a place: the buffer NAME.range = [lowest, highest, updates seen].
inline std::string range_name(const std::string& place) { return place + ".range"; }
inline constexpr int64_t kRangeNumbers = 3;

/// Quantizes the activations that pass the planned places of `module`: their values become those of 2^bits levels over
/// the range in the buffer NAME.range = [lowest, highest, updates seen]. While none was seen they stay as they are.
/// In training passes the range is watched and values beyond it become its bound; they are rounded to levels as well if
/// `round_in_training`. An update's range is that of all its micro-batches on all ranks; ranges of updates are averaged
/// with weight 1 / min(updates, 100). Evaluation rounds and watches nothing. Throws qn::Error naming a place that the
/// module does not have. Buffers get memory with the module's next allocate().
void quantize_activations(Module& module, const std::vector<ActivationPlan>& plan, bool round_in_training);

}  // namespace qn
