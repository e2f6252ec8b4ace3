#include "train/task.h"

#include <fmt/format.h>

#include <cmath>
#include <numbers>

namespace qn {

double Evaluation::base2() const { return loss / static_cast<double>(sample_size) / std::numbers::ln2; }

double Evaluation::at(const std::string& name) const {
  for (const Metric& metric : metrics)
    if (metric.name == name) return metric.value;
  QN_ASSERT(false, "no metric {}", name);
}

std::string text_of(const Metric& metric) {
  return fmt::format("{} {:.{}f}", metric.name, metric.value, metric.name == "ppl" ? 2 : 4);
}

std::string Evaluation::text() const {
  std::string text;
  for (const Metric& metric : metrics) text += (text.empty() ? "" : " | ") + text_of(metric);
  return text;
}

}  // namespace qn
