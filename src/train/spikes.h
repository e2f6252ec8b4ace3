// Losses and gradients that are far from what is usual: the signs of a training that is about to go wrong.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "nn/state_dict.h"

namespace qn {

/// What stood out, and by how much.
struct Spike {
  std::string what;  ///< "loss", "gradient norm"
  double value = 0.0, usual = 0.0;
};
/// "the loss is 12.30, usually about 5.12"
std::string text_of(const Spike& spike);

/// Compares each update with those before it, by the median and the median of the distances from it, which a few
/// outliers do not move. A value is a spike if it is above the median by so many deviations (1.4826 times the median
/// distance: the standard deviation, were the values normally distributed), and at least a tenth (loss) or twice
/// (gradient norm, whose deviations are those of its logarithm) as large. Depends on nothing but the values, so all
/// ranks that have these in common find the same.
class SpikeDetector {
 public:
  static constexpr size_t kWindow = 128;  ///< updates that count
  static constexpr size_t kLeast = 24;    ///< updates before which nothing is told

  /// `deviations` 0: never a spike.
  explicit SpikeDetector(double deviations) : deviations_(deviations) {}

  /// One more update. Returns a spike where it begins, and nothing for the updates after it that are as far out.
  std::optional<Spike> add(double loss, double grad_norm);
  /// What comes is not to be compared with what was: another stage.
  void clear();

  /// Entries "spikes/...", and taking them back; a state without them leaves nothing to compare with.
  void save(StateDict& state) const;
  void load(const StateDict& state);

 private:
  double deviations_;
  std::vector<double> losses_, norms_;  // oldest first; logarithms of norms
  bool out_ = false;                    // the newest update is
};

}  // namespace qn
