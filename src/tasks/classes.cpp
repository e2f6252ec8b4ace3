#include "tasks/classes.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "ops/host_access.h"

namespace qn {

std::string labels_text(const std::vector<std::string>& labels) { return fmt::format("{}", fmt::join(labels, "\n")); }

std::vector<std::string> labels_of(const std::string& text) {
  std::vector<std::string> labels;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) labels.push_back(line);
  return labels;
}

std::vector<double> host_doubles(Tape& tape, const Tensor& x) {
  const Tensor copy = tape.parameter_tensor(x.shape);
  tape.k.copy(copy, x);
  const HostView view(tape.k, copy);
  if (copy.dtype == DType::f64) return {view.span<double>().begin(), view.span<double>().end()};
  return {view.span<float>().begin(), view.span<float>().end()};
}

Prediction most_likely(std::span<const double> logits, const std::vector<std::string>& labels) {
  QN_ASSERT(logits.size() == labels.size());
  const auto largest = std::max_element(logits.begin(), logits.end());
  Prediction prediction{labels[static_cast<size_t>(largest - logits.begin())], {}};
  double sum = 0.0;
  for (const double logit : logits) sum += std::exp(logit - *largest);
  for (size_t c = 0; c < logits.size(); ++c)
    prediction.probabilities.emplace_back(labels[c], std::exp(logits[c] - *largest) / sum);
  return prediction;
}

}  // namespace qn
