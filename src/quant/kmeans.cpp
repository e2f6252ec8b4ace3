#include "quant/kmeans.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <unordered_set>

#include "core/error.h"
#include "core/log.h"
#include "core/random.h"

namespace qn {
namespace {

constexpr double kLargestValue = 1e12;  // squares and products of this stay far inside float32
// Splits are resolved at once for all weights and at best double the used clusters: 16 attempts reach 65536.
constexpr uint32_t kMaxSplitAttempts = 24;
constexpr double kSplitDistance = 1e-4;      // of the cluster's standard deviation
constexpr double kSmallestSpread = 0x1p-20;  // of the mean's size: closer vectors are the same but for rounding

void check_problem(const KMeansProblem& p) {
  QN_CHECK(p.rows > 0 && p.cols > 0 && p.weight != nullptr, "k-means: weight '{}' is empty ({} x {})", p.name, p.rows,
           p.cols);
  QN_CHECK(p.block_size > 0 && p.cols % p.block_size == 0,
           "k-means: weight '{}' has {} columns, which blocks of {} do not divide", p.name, p.cols, p.block_size);
  QN_CHECK(p.n_centroids >= 1 && p.n_centroids <= 65536, "k-means: weight '{}' asks for {} centroids, 1..65536 allowed",
           p.name, p.n_centroids);
  QN_CHECK(p.initial_centroids.empty() || std::ssize(p.initial_centroids) == p.n_centroids * p.block_size,
           "k-means: weight '{}' has {} initial centroid values, {} x {} expected", p.name, p.initial_centroids.size(),
           p.n_centroids, p.block_size);
  QN_CHECK(p.row_importance.empty() || std::ssize(p.row_importance) == p.rows,
           "k-means: weight '{}' has {} importance weights for {} rows", p.name, p.row_importance.size(), p.rows);
  QN_CHECK(p.column_importance.empty() || std::ssize(p.column_importance) == p.cols,
           "k-means: weight '{}' has {} importance weights for {} columns", p.name, p.column_importance.size(), p.cols);
}

/// Largest importance; infinity when one is negative or not a number.
double largest_importance(std::span<const float> values) {
  if (values.empty()) return 1.0;
  const bool negative = std::any_of(values.begin(), values.end(), [](float w) { return w < 0.0f; });
  return negative ? std::numeric_limits<double>::infinity() : largest_magnitude(values);
}

/// What the sums of one cluster say about it.
struct Cluster {
  const StatsLayout& layout;
  const std::vector<double>& stats;
  int64_t k;

  double count() const { return stats[static_cast<size_t>(layout.count(k))]; }
  double error() const { return stats[static_cast<size_t>(layout.error(k))]; }
  double residual(int64_t t) const { return stats[static_cast<size_t>(layout.residual(k) + t)]; }
  /// Sum of the importances of its sub-vectors' elements t.
  double weight(int64_t t) const {
    if (layout.weights == 0) return count();
    return stats[static_cast<size_t>(layout.weight(k) + (layout.weights > 1 ? t : 0))];
  }
  /// Mean minus the centroid that assigned; 0 where all weights are 0.
  double shift(int64_t t) const { return weight(t) > 0.0 ? residual(t) / weight(t) : 0.0; }
  /// Weight of its squared error's terms.
  double total_weight() const {
    if (layout.weights <= 1) return weight(0) * static_cast<double>(layout.dim);
    double total = 0.0;
    for (int64_t t = 0; t < layout.dim; ++t) total += weight(t);
    return total;
  }
  /// Squared error about the cluster's own mean.
  double error_about_mean() const {
    double removed = 0.0;
    for (int64_t t = 0; t < layout.dim; ++t) removed += shift(t) * residual(t);
    return std::max(0.0, error() - removed);
  }
};

struct Donor {
  double error;  ///< squared, about the mean
  int64_t k;
};

/// Clusters that can be split, largest squared error first.
std::vector<Donor> find_donors(const StatsLayout& layout, const std::vector<double>& stats,
                               const std::vector<float>& centroids) {
  std::vector<Donor> donors;
  for (int64_t k = 0; k < layout.n_centroids; ++k) {
    const Cluster cluster{layout, stats, k};
    if (cluster.count() < 2.0) continue;
    double size = 0.0;
    for (int64_t t = 0; t < layout.dim; ++t)
      size = std::max(
          size, std::abs(static_cast<double>(centroids[static_cast<size_t>(k * layout.dim + t)]) + cluster.shift(t)));
    const double error = cluster.error_about_mean();
    const double smallest = kSmallestSpread * size;
    // The second bound is the cancellation in error_about_mean.
    if (error > cluster.total_weight() * smallest * smallest && error > 1e-10 * cluster.error())
      donors.push_back({error, k});
  }
  std::stable_sort(donors.begin(), donors.end(), [](const Donor& a, const Donor& b) { return a.error > b.error; });
  return donors;
}

}  // namespace

int64_t capped_centroids(int64_t blocks, int64_t n_centroids) {
  return std::min(n_centroids, std::max<int64_t>(1, blocks / 4));
}

StageKMeans::StageKMeans(std::vector<KMeansProblem> problems, KMeansOptions options, Communicator& comm,
                         const Kernels& kernels)
    : problems_(std::move(problems)), options_(options), comm_(comm), all_layers_(problems_.size()) {
  QN_CHECK(options_.iterations >= 1, "k-means needs at least one iteration, got {}", options_.iterations);
  for (const KMeansProblem& problem : problems_) check_problem(problem);
  std::iota(all_layers_.begin(), all_layers_.end(), size_t{0});
  prepare_layers(kernels);
  check_values();
  state_.centroids.resize(problems_.size());
  state_.objective_history.resize(problems_.size());
  state_.splits.assign(problems_.size(), 0);
  for (const size_t i : all_layers_) draw_initial_centroids(i);
  state_.assigning_centroids = state_.centroids;
}

void StageKMeans::prepare_layers(const Kernels& kernels) {
  std::vector<WeightShare> shares;
  for (KMeansProblem& p : problems_) {
    const int64_t blocks_per_row = p.cols / p.block_size;
    const int64_t blocks = p.rows * blocks_per_row;
    if (p.initial_centroids.empty()) p.n_centroids = capped_centroids(blocks, p.n_centroids);
    WeightShare share;
    share.vectors = {.data = p.weight,
                     .count = blocks,
                     .dim = p.block_size,
                     .blocks_per_row = blocks_per_row,
                     .row_importance = p.row_importance.empty() ? nullptr : p.row_importance.data(),
                     .column_importance = p.column_importance.empty() ? nullptr : p.column_importance.data()};
    share.n_centroids = p.n_centroids;
    const int64_t chunks = (blocks + kSubVectorChunk - 1) / kSubVectorChunk;
    share.begin = std::min(blocks, chunks * comm_.rank() / comm_.size() * kSubVectorChunk);
    share.end = std::min(blocks, chunks * (comm_.rank() + 1) / comm_.size() * kSubVectorChunk);
    shares.push_back(share);
    layers_.push_back({share, share.layout(), {}});
  }
  backend_ = make_kmeans_backend(kernels, std::move(shares));
}

void StageKMeans::check_values() {
  std::vector<double> largest = backend_->largest_magnitudes();
  for (const size_t i : all_layers_) {
    const KMeansProblem& p = problems_[i];
    largest[i] = std::max(largest[i], largest_magnitude(p.initial_centroids));
    largest.push_back(largest_importance(p.row_importance) * largest_importance(p.column_importance));
  }
  // Each rank looked at its share only; every rank must come to the same verdict.
  comm_.all_reduce_max(largest);
  for (const size_t i : all_layers_) {
    const double magnitude = largest[i], importance = largest[problems_.size() + i];
    QN_CHECK(magnitude <= kLargestValue,
             "k-means: weight '{}' holds values that are not finite or beyond 1e12; the model has diverged",
             problems_[i].name);
    QN_CHECK(importance <= kLargestValue, "k-means: importance weights of '{}' must lie in [0, 1e12]",
             problems_[i].name);
    backend_->set_bounds(i, magnitude, importance);
  }
}

void StageKMeans::draw_initial_centroids(size_t index) {
  const KMeansProblem& p = problems_[index];
  std::vector<float>& centroids = state_.centroids[index];
  if (!p.initial_centroids.empty()) {
    centroids = p.initial_centroids;
    return;
  }
  const int64_t count = layers_[index].share.vectors.count;
  const auto d = static_cast<size_t>(p.block_size);
  const auto at = [d](size_t i) { return static_cast<std::ptrdiff_t>(i * d); };
  const RandomStream stream({options_.seed, Purpose::kmeans_init, hash_name(p.name.c_str()), options_.stage, 0});
  // Two equal centroids would leave one cluster empty: take further samples (a longer draw only appends) until K
  // different values are found or it is clear that they are rare. Then repeats fill up, and splitting sees to them.
  const int64_t limit = std::min(count, 64 * p.n_centroids);
  std::vector<size_t> fresh, repeats;  // places in the draw
  std::vector<float> values;
  for (int64_t draw = p.n_centroids;; draw = std::min(limit, 8 * draw)) {
    std::unordered_set<std::string> seen;
    fresh.clear();
    repeats.clear();
    values = backend_->gather(index, stream.sample_without_replacement(count, draw));
    for (size_t i = 0; i < static_cast<size_t>(draw); ++i) {
      std::vector<float> value(values.begin() + at(i), values.begin() + at(i + 1));
      for (float& x : value) x += 0.0f;  // -0 equals 0
      (seen.emplace(reinterpret_cast<const char*>(value.data()), d * sizeof(float)).second ? fresh : repeats)
          .push_back(i);
    }
    if (std::ssize(fresh) >= p.n_centroids || draw >= limit) break;
  }
  fresh.insert(fresh.end(), repeats.begin(), repeats.end());
  centroids.reserve(static_cast<size_t>(p.n_centroids) * d);
  for (size_t k = 0; k < static_cast<size_t>(p.n_centroids); ++k)
    centroids.insert(centroids.end(), values.begin() + at(fresh[k]), values.begin() + at(fresh[k] + 1));
}

void StageKMeans::assign(std::span<const size_t> layers) {
  backend_->assign(layers, state_.assigning_centroids, reduction_);
  comm_.all_reduce_sum(std::span<double>(reduction_));
  auto from = reduction_.cbegin();
  for (const size_t i : layers) {
    const auto to = from + layers_[i].layout.size();
    layers_[i].stats.assign(from, to);
    from = to;
  }
}

bool StageKMeans::step() {
  if (state_.iteration >= options_.iterations) return false;
  state_.assigning_centroids = state_.centroids;
  assign(all_layers_);
  resolve_empty_clusters();
  for (const size_t i : all_layers_) update_centroids(i);
  codes_current_ = true;
  return ++state_.iteration < options_.iterations;
}

void StageKMeans::resolve_empty_clusters() {
  for (uint32_t attempt = 0; attempt < kMaxSplitAttempts; ++attempt) {
    std::vector<size_t> changed;
    for (const size_t i : all_layers_)
      if (split_into_empty(i, attempt)) changed.push_back(i);
    if (changed.empty()) return;
    assign(changed);
  }
}

/// Gives each empty cluster one half of the clusters with the largest squared error: both centroids move to the donor's
/// mean, a small step apart. The mean is the best single centroid and the step is tiny, so the objective cannot rise.
/// False when nothing is empty or nothing can be split.
bool StageKMeans::split_into_empty(size_t index, uint32_t attempt) {
  const Layer& layer = layers_[index];
  const StatsLayout& layout = layer.layout;
  std::vector<int64_t> empty;
  for (int64_t k = 0; k < layout.n_centroids; ++k)
    if (layer.stats[static_cast<size_t>(layout.count(k))] == 0.0) empty.push_back(k);
  if (empty.empty()) return false;
  std::vector<float>& centroids = state_.assigning_centroids[index];
  const std::vector<Donor> donors = find_donors(layout, layer.stats, centroids);
  const RandomStream stream({options_.seed, Purpose::kmeans_split, hash_name(problems_[index].name.c_str()),
                             static_cast<uint32_t>(state_.iteration), options_.stage << 8 | attempt});
  const size_t pairs = std::min(empty.size(), donors.size());
  for (size_t i = 0; i < pairs; ++i) {
    const Cluster donor{layout, layer.stats, donors[i].k};
    const double spread = std::sqrt(donors[i].error / donor.total_weight());
    for (int64_t t = 0; t < layout.dim; ++t) {
      float& old_centroid = centroids[static_cast<size_t>(donor.k * layout.dim + t)];
      const double mean = static_cast<double>(old_centroid) + donor.shift(t);
      const double draw = stream.normal(static_cast<uint64_t>(empty[i] * layout.dim + t));
      const double visible = std::max(kSplitDistance * spread * std::abs(draw), 0x1p-22 * std::abs(mean));
      const double step = std::copysign(visible, draw);
      old_centroid = static_cast<float>(mean - step);
      centroids[static_cast<size_t>(empty[i] * layout.dim + t)] = static_cast<float>(mean + step);
    }
  }
  state_.splits[index] += static_cast<int64_t>(pairs);
  return pairs > 0;
}

void StageKMeans::update_centroids(size_t index) {
  const Layer& layer = layers_[index];
  std::vector<float>& centroids = state_.centroids[index];
  centroids = state_.assigning_centroids[index];
  double error = 0.0;
  for (int64_t k = 0; k < layer.layout.n_centroids; ++k) {
    const Cluster cluster{layer.layout, layer.stats, k};
    error += cluster.error();
    for (int64_t t = 0; t < layer.layout.dim; ++t) {
      float& c = centroids[static_cast<size_t>(k * layer.layout.dim + t)];
      const float mean = static_cast<float>(static_cast<double>(c) + cluster.shift(t));
      // sum w (x - c - s)^2 = sum w (x - c)^2 + s (s sum w - 2 sum w (x - c)): no second pass over the weight.
      const double moved = static_cast<double>(mean) - static_cast<double>(c);
      error += moved * (moved * cluster.weight(t) - 2.0 * cluster.residual(t));
      c = mean;
    }
  }
  state_.objective_history[index].push_back(std::sqrt(std::max(0.0, error)));
}

void StageKMeans::restore(KMeansState state) {
  const size_t n = problems_.size();
  QN_CHECK(state.centroids.size() == n && state.assigning_centroids.size() == n &&
               state.objective_history.size() == n && state.splits.size() == n,
           "stored k-means state has {} weights, this stage has {}: the quantization plan has changed",
           state.centroids.size(), n);
  for (const size_t i : all_layers_) {
    const size_t expected = state_.centroids[i].size();
    QN_CHECK(state.centroids[i].size() == expected && state.assigning_centroids[i].size() == expected,
             "stored k-means state of '{}' has {} centroid values, this plan has {}: the plan has changed",
             problems_[i].name, state.centroids[i].size(), expected);
    QN_CHECK(std::ssize(state.objective_history[i]) == state.iteration && state.iteration >= 0,
             "stored k-means state of '{}' is inconsistent: {} objectives after {} iterations", problems_[i].name,
             state.objective_history[i].size(), state.iteration);
  }
  state_ = std::move(state);
  codes_current_ = false;
}

std::vector<uint16_t> StageKMeans::gather_codes(size_t index) {
  // Four codes per 64-bit word; every rank fills its own positions of a zeroed table, so the sum is the union.
  constexpr size_t kPiece = size_t{1} << 20;
  const WeightShare& share = layers_[index].share;
  std::vector<int64_t> words(static_cast<size_t>(share.vectors.count + 3) / 4, 0);
  if (const std::vector<uint16_t> mine = backend_->codes(index); !mine.empty())
    std::memcpy(reinterpret_cast<uint16_t*>(words.data()) + share.begin, mine.data(), mine.size() * sizeof(uint16_t));
  for (size_t at = 0; at < words.size(); at += kPiece)
    comm_.all_reduce_sum(std::span<int64_t>(words).subspan(at, std::min(kPiece, words.size() - at)));
  std::vector<uint16_t> codes(static_cast<size_t>(share.vectors.count));
  std::memcpy(codes.data(), words.data(), codes.size() * sizeof(uint16_t));
  return codes;
}

std::vector<WeightResult> StageKMeans::finish() {
  QN_CHECK(state_.iteration >= 1, "k-means: no iteration done yet");
  if (!codes_current_) assign(all_layers_);
  codes_current_ = true;
  std::vector<WeightResult> results;
  int64_t few = 0;
  std::string example;
  for (const size_t i : all_layers_) {
    const Layer& layer = layers_[i];
    const KMeansProblem& p = problems_[i];
    WeightResult result;
    result.table = {p.rows,
                    p.cols,
                    p.block_size,
                    p.n_centroids,
                    state_.centroids[i],
                    codes_from_memory_order(gather_codes(i), p.rows, p.cols / p.block_size),
                    {}};
    for (int64_t k = 0; k < p.n_centroids; ++k) {
      const double count = layer.stats[static_cast<size_t>(layer.layout.count(k))];
      result.table.counts.push_back(static_cast<int64_t>(count));
      if (count == 0.0) ++result.still_empty;
    }
    if (result.still_empty > 0 && few++ == 0)
      example = fmt::format("'{}' leaves {} of {} unused", p.name, result.still_empty, p.n_centroids);
    result.objective = state_.objective_history[i].back();
    result.resolved_empty = state_.splits[i];
    results.push_back(std::move(result));
  }
  if (few > 0)
    spdlog::warn("{} of {} weights have too few different blocks for all their centroids ({}); fewer would do", few,
                 results.size(), example);
  return results;
}

std::vector<SquaredErrors> StageKMeans::squared_errors() {
  QN_ASSERT(codes_current_);
  std::vector<SquaredErrors> errors = backend_->squared_errors(state_.centroids);
  std::vector<double> sums;
  for (const SquaredErrors& e : errors) sums.insert(sums.end(), {e.error, e.original});
  comm_.all_reduce_sum(std::span<double>(sums));
  for (size_t i = 0; i < errors.size(); ++i) errors[i] = {sums[2 * i], sums[2 * i + 1]};
  return errors;
}

}  // namespace qn
