// Range search of the histogram method (reference 2.3). Lengths are in bins: the width of a bin only scales the error.
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "quant/scalar_quantizer.h"

namespace qn {
namespace {

double cube(double x) { return x * x * x; }

/// Three times the integral of the squared distance to the nearest of `levels` levels in the middle of equal parts of
/// the kept bins, with the values of a bin spread evenly over it.
double quantization_error(std::span<const int64_t> histogram, const BinRange& kept, int64_t levels) {
  const double span = static_cast<double>(kept.last - kept.first + 1), part = span / static_cast<double>(levels);
  const double half_cubed = cube(part / 2.0);
  // Exact at the border between parts: numerator and denominator are whole numbers.
  const auto part_of = [&](double position) {
    return std::clamp(std::floor(position * static_cast<double>(levels) / span), 0.0, static_cast<double>(levels - 1));
  };
  double error = 0.0;
  for (int64_t b = 0; b < std::ssize(histogram); ++b) {
    const auto begin = static_cast<double>(b - kept.first), end = begin + 1.0;
    const double first = part_of(begin), last = part_of(end);
    const double from_first = begin - (first + 0.5) * part, from_last = end - (last + 0.5) * part;
    const double integral =
        half_cubed - cube(from_first) + (last - first - 1.0) * 2.0 * half_cubed + cube(from_last) + half_cubed;
    error += static_cast<double>(histogram[static_cast<size_t>(b)]) * integral;
  }
  return error;
}

}  // namespace

BinRange search_bins(std::span<const int64_t> histogram, int64_t levels) {
  QN_ASSERT(!histogram.empty() && levels > 1);
  constexpr double kStep = 1e-5;  // of the quantiles
  std::vector<double> cumulative;
  double total = 0.0;
  for (const int64_t count : histogram) cumulative.push_back(total += static_cast<double>(count));
  BinRange kept{0, std::ssize(histogram) - 1};
  double alpha = 0.0, beta = 1.0, best = std::numeric_limits<double>::infinity();
  while (alpha < beta) {
    const double next_alpha = alpha + kStep, next_beta = beta - kStep;
    BinRange cut = kept;
    while (cut.first < kept.last && cumulative[static_cast<size_t>(cut.first)] < next_alpha * total) ++cut.first;
    while (cut.last > kept.first && cumulative[static_cast<size_t>(cut.last)] > next_beta * total) --cut.last;
    BinRange proposal = kept;
    if (cut.first - kept.first > kept.last - cut.last) {
      proposal.first = cut.first;
      alpha = next_alpha;
    } else {
      proposal.last = cut.last;
      beta = next_beta;
    }
    if (proposal == kept) continue;
    const double error = quantization_error(histogram, proposal, levels);
    if (error > best) break;
    kept = proposal;
    best = error;
  }
  return kept;
}

}  // namespace qn
