#include "tasks/sentence_metrics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace qn {
namespace {

/// The rank of every value, from 1; equal ones get their mean.
std::vector<double> ranks_of(std::span<const double> values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  for (size_t first = 0; first < order.size();) {
    size_t last = first;
    while (last < order.size() && values[order[last]] == values[order[first]]) ++last;
    for (size_t i = first; i < last; ++i) ranks[order[i]] = static_cast<double>(first + last + 1) / 2;
    first = last;
  }
  return ranks;
}

double ratio(double numerator, double denominator) { return denominator > 0.0 ? numerator / denominator : 0.0; }

}  // namespace

bool is_of_regression(SentenceMetric metric) {
  return metric == SentenceMetric::pearson || metric == SentenceMetric::spearman || metric == SentenceMetric::corr;
}

int64_t positive_class(std::span<const std::string> labels) {
  const auto found = std::find(labels.begin(), labels.end(), "1");
  return found == labels.end() ? 1 : found - labels.begin();
}

ClassScores class_scores(std::span<const int32_t> predicted, std::span<const int32_t> actual, int64_t classes,
                         int64_t positive) {
  std::vector<double> said(static_cast<size_t>(classes)), are(said), right(said);
  for (size_t i = 0; i < actual.size(); ++i) {
    ++said[static_cast<size_t>(predicted[i])];
    ++are[static_cast<size_t>(actual[i])];
    if (predicted[i] == actual[i]) ++right[static_cast<size_t>(actual[i])];
  }
  const auto n = static_cast<double>(actual.size());
  const auto product = [](const std::vector<double>& a, const std::vector<double>& b) {
    return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
  };
  const double correct = std::accumulate(right.begin(), right.end(), 0.0);
  ClassScores scores{.accuracy = ratio(correct, n)};
  const auto p = static_cast<size_t>(positive);
  if (positive < classes) scores.f1 = ratio(2.0 * right[p], said[p] + are[p]);
  scores.mcc =
      ratio(correct * n - product(said, are), std::sqrt((n * n - product(said, said)) * (n * n - product(are, are))));
  return scores;
}

double pearson(std::span<const double> a, std::span<const double> b) {
  const auto mean = [](std::span<const double> values) {
    return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  };
  const double mean_a = mean(a), mean_b = mean(b);
  double both = 0.0, of_a = 0.0, of_b = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    both += (a[i] - mean_a) * (b[i] - mean_b);
    of_a += (a[i] - mean_a) * (a[i] - mean_a);
    of_b += (b[i] - mean_b) * (b[i] - mean_b);
  }
  return ratio(both, std::sqrt(of_a) * std::sqrt(of_b));
}

double spearman(std::span<const double> a, std::span<const double> b) { return pearson(ranks_of(a), ranks_of(b)); }

}  // namespace qn
