#include "nn/layers/bands.h"

#include <fmt/ranges.h>

#include <cmath>

#include "core/error.h"

namespace qn {

Bands::Bands(std::vector<int64_t> cutoffs, int64_t vocabulary, int64_t dim, double factor) : ends_(std::move(cutoffs)) {
  QN_CHECK_USAGE(ends_.empty() || ends_.back() <= vocabulary,
                 "adaptive cutoff {} exceeds the vocabulary of {} words: lower model.adaptive.cutoffs", ends_.back(),
                 vocabulary);
  if (ends_.empty() || ends_.back() < vocabulary) ends_.push_back(vocabulary);
  for (size_t i = 0; i < ends_.size(); ++i) {
    QN_CHECK_USAGE(ends_[i] > (i == 0 ? 0 : ends_[i - 1]), "adaptive cutoffs must ascend, got [{}]",
                   fmt::join(ends_, ", "));
    dims_.push_back(static_cast<int64_t>(static_cast<double>(dim) / std::pow(factor, static_cast<double>(i))));
    QN_CHECK_USAGE(dims_.back() > 0, "adaptive band {} has no dimension left: {} / {}^{}; lower model.adaptive.factor",
                   i, dim, factor, i);
  }
}

Bands::Split Bands::split(std::span<const int32_t> ids, int64_t multiple) const {
  Split result;
  result.rows.resize(ends_.size());
  result.ids.resize(ends_.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0) continue;
    size_t band = 0;
    while (ids[i] >= ends_[band]) ++band;
    result.rows[band].push_back(static_cast<int32_t>(i));
    result.ids[band].push_back(ids[i] - static_cast<int32_t>(first(static_cast<int64_t>(band))));
  }
  for (size_t band = 0; band < ends_.size(); ++band) {
    const auto m = static_cast<size_t>(multiple), size = (result.rows[band].size() + m - 1) / m * m;
    result.rows[band].resize(size, -1);
    result.ids[band].resize(size, -1);
  }
  return result;
}

}  // namespace qn
