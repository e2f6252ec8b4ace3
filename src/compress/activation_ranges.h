// Fixed-width activations: ranges are observed while training (or calibrating), averaged over updates, saved in
// buffers, and frozen in evaluation (reference 2.5, with ranges that survive).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "nn/module.h"
#include "quant/scalar_quantizer.h"

namespace qn {

/// One place whose activations are quantized.
struct ActivationPlan {
  std::string name;                         ///< of the ActivationPoint
  int bits = 8;                             ///< 2 to 8
  RangeMethod range = RangeMethod::tensor;  ///< or histogram
  int64_t range_updates = 100;              ///< histogram: updates from one search to the next
  bool operator==(const ActivationPlan&) const = default;
};

/// Whether ranges of one plan are of no use to the other.
bool ranges_differ(const std::vector<ActivationPlan>& one, const std::vector<ActivationPlan>& other);

/// What is saved of a place: the buffer NAME.range = [lowest, highest, updates seen].
inline std::string range_name(const std::string& place) { return place + ".range"; }
inline constexpr int64_t kRangeNumbers = 3;

/// Quantizes the activations that pass the planned places of `module`: their values become those of 2^bits levels over
/// the range in the buffer NAME.range = [lowest, highest, updates seen]. While none was seen they stay as they are.
/// In training passes the range is watched and values beyond it become its bound; they are rounded to levels as well if
/// `round_in_training`. Evaluation rounds and watches nothing. Throws qn::Error naming a place that the module does not
/// have. Buffers get memory with the module's next allocate().
/// RangeMethod::tensor: an update's range is that of all its micro-batches on all ranks; ranges of updates are averaged
/// with weight 1 / min(updates, 100).
/// RangeMethod::histogram: what passes in some updates (number 0, the powers of two below `range_updates`, its
/// multiples) is counted on all ranks, and the range is the part with the smallest error by search_bins() (reference
/// 2.3), averaged over the searches of about 100 updates. Calibration counts all its passes together.
/// A name that places of the module had in common before (ActivationPoint::former()) means all of them, with one range.
void quantize_activations(Module& module, const std::vector<ActivationPlan>& plan, bool round_in_training);

}  // namespace qn
