#include "quant/kmeans_bounds.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "core/error.h"

namespace qn {
namespace {

/// Below this bounds cost more than they spare.
constexpr int64_t kFewestCentroids = 64, kFewestSubVectors = 4096;
constexpr double kUnitsPerDistance = 80.0;  // of a typical sub-vector to its centroid; a byte reaches 3.2 times as far
/// Centroids that on average move farther than this share of that distance leave nothing of a bound.
constexpr double kFarthestWay = 0.2;
constexpr double kMostLookedAt =
    0.5;                            // share of groups; looking at all of them costs about twice what doing without does
constexpr double kUp = 1.0 + 1e-9;  // covers roundings of double arithmetic

double distance(const float* a, const float* b, int64_t dim) {
  double square = 0.0;
  for (int64_t t = 0; t < dim; ++t) {
    const double diff = static_cast<double>(a[t]) - static_cast<double>(b[t]);
    square += diff * diff;
  }
  return std::sqrt(square);
}

/// Root mean square distance of some sub-vectors to the centroids that they had.
double typical_distance(const SubVectors& v, int64_t begin, int64_t count, const CentroidTable& table,
                        const uint16_t* codes) {
  const int64_t samples = std::min<int64_t>(count, 512);
  double squares = 0.0;
  for (int64_t i = 0; i < samples; ++i) {
    const int64_t at = i * (count / samples);
    const double d = distance(v.data + (begin + at) * v.dim, table.values() + codes[at] * v.dim, v.dim);
    squares += d * d;
  }
  return std::sqrt(squares / static_cast<double>(samples));
}

/// Sorts numbers[begin, end) so that `groups` runs of `size` (the last may be shorter) are near each other: halves them
/// along the axis on which they differ most, again and again.
void sort_into_groups(std::span<uint16_t> numbers, int64_t groups, int64_t size, const CentroidTable& table) {
  if (groups <= 1) return;
  int64_t axis = 0;
  float widest = -1.0f;
  const auto value = [&](uint16_t k, int64_t t) { return table.values()[k * table.dim() + t]; };
  for (int64_t t = 0; t < table.dim(); ++t) {
    const auto [least, most] = std::ranges::minmax(numbers, {}, [&](uint16_t k) { return value(k, t); });
    const float width = value(most, t) - value(least, t);
    if (width > widest) {
      widest = width;
      axis = t;
    }
  }
  const int64_t left = (groups + 1) / 2;
  const auto middle = static_cast<size_t>(left * size);
  std::ranges::nth_element(numbers, numbers.begin() + static_cast<std::ptrdiff_t>(middle), {},
                           [&](uint16_t k) { return std::pair(value(k, axis), k); });
  sort_into_groups(numbers.first(middle), left, size, table);
  sort_into_groups(numbers.subspan(middle), groups - left, size, table);
}

}  // namespace

bool AssignBounds::suit(const SubVectors& v, int64_t count, const CentroidTable& table) const {
  if (!assign_variant().bounds || v.column_importance != nullptr || table.count() > kMostBoundCentroids) return false;
  if (v.dim != 4 && v.dim != 8) return false;
  if (!has_score_grid(v)) return false;
  return eager_ || (table.count() >= kFewestCentroids && count >= kFewestSubVectors);
}

const BoundStep* AssignBounds::start(const SubVectors& v, int64_t begin, int64_t end, const CentroidTable& table,
                                     const uint16_t* codes) {
  count_ = end - begin;
  made_ = false;
  const std::span<const float> now(table.values(), static_cast<size_t>(table.count() * table.dim()));
  const std::vector<float> before = std::exchange(centroids_, {now.begin(), now.end()});
  if (count_ == 0 || before.size() != now.size() || !suit(v, count_, table)) {
    valid_ = false;
    return nullptr;
  }
  std::vector<double> ways;
  for (int64_t k = 0; k < table.count(); ++k)
    ways.push_back(distance(before.data() + k * v.dim, table.values() + k * v.dim, v.dim));
  const double typical = typical_distance(v, begin, count_, table, codes);
  const double mean_way = std::accumulate(ways.begin(), ways.end(), 0.0) / static_cast<double>(ways.size());
  const bool worth = eager_ || (mean_way < kFarthestWay * typical && rest_ == 0);
  if (rest_ > 0) --rest_;
  if (!worth || typical <= 1e-12 * v.max_abs) {  // else units could leave the range of float
    valid_ = false;
    return nullptr;
  }
  if (valid_)
    move(ways);
  else
    make(count_, table, typical);
  lay_out_groups(v, table);
  step_.first = begin;
  return &step_;
}

void AssignBounds::make(int64_t count, const CentroidTable& table, double typical) {
  bytes_.assign(static_cast<size_t>(count * kBoundGroups), 0);
  valid_ = made_ = true;
  const int64_t k = table.count();
  const int64_t size = ((k + kBoundGroups - 1) / kBoundGroups + kMaxLanes - 1) / kMaxLanes * kMaxLanes;
  numbers_.resize(static_cast<size_t>(k));
  std::iota(numbers_.begin(), numbers_.end(), uint16_t{0});
  sort_into_groups(numbers_, (k + size - 1) / size, size, table);
  places_.resize(numbers_.size());
  for (size_t i = 0; i < numbers_.size(); ++i) places_[numbers_[i]] = static_cast<uint16_t>(i);
  std::ranges::fill(rest_of_way_, 0.0);
  step_ = {.numbers = numbers_.data(),
           .places = places_.data(),
           .group_size = size,
           .unit = static_cast<float>(typical / kUnitsPerDistance),
           .bytes = bytes_.data()};
}

void AssignBounds::move(const std::vector<double>& ways) {
  for (int64_t g = 0; g < kBoundGroups; ++g) {
    double way = 0.0;
    for (size_t i = static_cast<size_t>(g * step_.group_size);
         i < std::min(numbers_.size(), static_cast<size_t>((g + 1) * step_.group_size)); ++i)
      way = std::max(way, ways[numbers_[i]]);
    const double units = rest_of_way_[g] + way * kUp / static_cast<double>(step_.unit);
    const double whole = std::min(std::floor(units), 255.0);
    rest_of_way_[g] = whole < 255.0 ? units - whole : 0.0;  // bytes of 0 promise nothing
    step_.fall[g] = static_cast<uint8_t>(whole);
    step_.slack[g] = std::nextafter(static_cast<float>(rest_of_way_[g]), std::numeric_limits<float>::infinity());
  }
}

/// The centroids as they are now, group by group.
void AssignBounds::lay_out_groups(const SubVectors& v, const CentroidTable& table) {
  std::vector<float> sorted;
  for (const uint16_t k : numbers_)
    sorted.insert(sorted.end(), table.values() + k * v.dim, table.values() + (k + 1) * v.dim);
  grouped_ = std::make_unique<CentroidTable>(sorted, v.dim);
  step_.grouped = grouped_.get();
  const ScoreGrid grid = step_.grid = make_score_grid(v, *grouped_);
  const auto places = static_cast<size_t>(kBoundGroups * step_.group_size);
  const size_t products = places * static_cast<size_t>(v.dim);
  if (const size_t bytes = products * sizeof(int16_t) + places * sizeof(int32_t); scores_.size() != bytes)
    scores_ = Buffer(bytes);
  auto* const centroids = reinterpret_cast<int16_t*>(scores_.data());
  auto* const norms = reinterpret_cast<int32_t*>(centroids + products);
  std::fill_n(centroids, products, int16_t{0});
  std::fill_n(norms, places, INT32_MAX);
  double longest_rounding = 0.0, largest_sum = 0.0;  // of |rounding of c|; of the sum of the |c_t|
  for (int64_t k = 0; k < grouped_->count(); ++k) {
    norms[k] = static_cast<int32_t>(grouped_->half_norm()[k] / grid.unit);
    double rounding = 0.0, total = 0.0;
    for (int64_t t = 0; t < v.dim; ++t) {
      const double value = -static_cast<double>(grouped_->values()[k * v.dim + t]) * static_cast<double>(grid.scale_c);
      const double rounded = std::nearbyint(value);
      const int64_t at = ((k / kMaxLanes * (v.dim / 2) + t / 2) * kMaxLanes + k % kMaxLanes) * 2 + t % 2;
      centroids[at] = static_cast<int16_t>(rounded);
      rounding += (value - rounded) * (value - rounded);
      total += std::abs(value);
    }
    longest_rounding = std::max(longest_rounding, std::sqrt(rounding));
    largest_sum = std::max(largest_sum, total);
  }
  step_.centroids = centroids;
  step_.norms = norms;
  // x.c is wrong by what rounding c takes from |x| and half a unit of x (and a little) from |c_t|, in units; then what
  // float32 does to scores, which is less than 1000 units.
  const double unit = static_cast<double>(grid.unit) * kUp, d = static_cast<double>(v.dim);
  const double half = 0.501, float_errors = 2e-6 * static_cast<double>(grid.most_score(v.dim)) + 4.0 * d;
  step_.error = static_cast<float>(unit * (float_errors + half * largest_sum + half * std::sqrt(d) * longest_rounding));
  step_.error_per_length = static_cast<float>(unit * longest_rounding * static_cast<double>(grid.scale_x));
}

void AssignBounds::finish(int64_t looked_at) {
  share_looked_at_ = valid_ ? static_cast<double>(looked_at) / static_cast<double>(count_ * kBoundGroups) : 1.0;
  if (!valid_ || made_ || eager_ || share_looked_at_ <= kMostLookedAt) return;
  valid_ = false;
  rest_ = next_rest_;
  next_rest_ *= 2;
}

}  // namespace qn
