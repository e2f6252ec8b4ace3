#include "train/task.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace qn {

double Evaluation::base2() const { return loss / static_cast<double>(sample_size) / std::numbers::ln2; }

bool Evaluation::finite() const {
  const auto is_finite = [](const Metric& metric) { return std::isfinite(metric.value); };
  return std::isfinite(loss) && std::all_of(metrics.begin(), metrics.end(), is_finite);
}

double Evaluation::at(const std::string& name) const {
  for (const Metric& metric : metrics)
    if (metric.name == name) return metric.value;
  QN_ASSERT(false, "no metric {}", name);
}

std::string value_text(const Metric& metric) {
  constexpr double kReadable = 1e6;
  return std::abs(metric.value) < kReadable ? fmt::format("{:.{}f}", metric.value, metric.digits)
                                            : fmt::format("{:.2e}", metric.value);  // also NaN
}

std::string text_of(const Metric& metric) { return metric.name + " " + value_text(metric); }

bool agree(const Evaluation& a, const Evaluation& b) {
  constexpr double kTolerance = 1e-6;
  const auto same = [](const Metric& x, const Metric& y) {
    return x.name == y.name && std::abs(x.value - y.value) <= kTolerance * std::max(1.0, std::abs(y.value));
  };
  return a.sample_size == b.sample_size &&
         std::equal(a.metrics.begin(), a.metrics.end(), b.metrics.begin(), b.metrics.end(), same);
}

std::string text_of(const std::vector<Metric>& metrics) {
  std::string text;
  for (const Metric& metric : metrics) text += (text.empty() ? "" : " | ") + text_of(metric);
  return text;
}

std::string Evaluation::text() const { return text_of(metrics); }

}  // namespace qn
