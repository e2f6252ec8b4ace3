#include "nn/running_statistics.h"

#include <algorithm>
#include <cmath>

#include "ops/host_access.h"

namespace qn {
namespace {

void fold_norm(const Kernels& kernels, const NormParts& norm) {
  edit_on_host(kernels, norm.weight->value, [&](const Tensor& weight) {
    edit_on_host(kernels, norm.bias->value, [&](const Tensor& bias) {
      const HostView mean(kernels, norm.mean->value.view()), var(kernels, norm.var->value.view());
      const auto w = weight.span<float>(), b = bias.span<float>();
      const auto m = mean.span<float>(), v = var.span<float>();
      for (size_t c = 0; c < w.size(); ++c) {
        const double factor = static_cast<double>(w[c]) / std::sqrt(static_cast<double>(v[c]) + norm.eps);
        b[c] = static_cast<float>(static_cast<double>(b[c]) - static_cast<double>(m[c]) * factor);
        w[c] = static_cast<float>(factor * std::sqrt(1.0 + norm.eps));
      }
    });
  });
  for (const ModuleBuffer* average : {norm.mean, norm.var}) kernels.fill(average->value.view(), average->start);
}

std::vector<double> doubles_of(const Kernels& kernels, const Tensor& x) {
  const HostView view(kernels, x);
  if (view.view().dtype == DType::f64) return {view.span<double>().begin(), view.span<double>().end()};
  return {view.span<float>().begin(), view.span<float>().end()};
}

}  // namespace

RunningStatistics::Entry* RunningStatistics::add(const NormParts& norm, double momentum) {
  QN_ASSERT(norm.mean->shape == norm.var->shape && norm.mean->start == 0.0 && norm.var->start == 1.0);
  entries_.push_back({norm, momentum, elements_, {}, 0});
  elements_ += 2 * norm.mean->shape.elements();
  return &entries_.back();
}

void RunningStatistics::allocate(DType dtype, const Kernels& kernels) {
  if (empty()) return;
  sums_ = OwnedTensor({elements_, 1}, dtype, *kernels.memory);
  for (Entry& entry : entries_) {
    const int64_t channels = entry.norm.mean->shape.elements();
    entry.sums = sums().row_slice(entry.offset, 2 * channels).reshaped({2, channels});
  }
}

void RunningStatistics::apply(const Kernels& kernels, int64_t micro_batches) {
  if (frozen_) return;
  for (const Entry& entry : entries_) {
    int64_t row = 0;
    for (const ModuleBuffer* average : {entry.norm.mean, entry.norm.var}) {
      const Tensor &value = average->value.view(), seen = entry.sums.row_slice(row++, 1).reshaped(value.shape);
      kernels.axpy(value, value, 1.0 - entry.momentum, 0);
      kernels.axpy(value, seen, entry.momentum / static_cast<double>(micro_batches), 1);
    }
  }
}

size_t RunningStatistics::pooled_size() const { return entries_.size() + static_cast<size_t>(elements_); }

void RunningStatistics::pool(const Kernels& kernels, std::span<double> pooled) const {
  QN_ASSERT(pooled.size() == pooled_size());
  for (const Entry& entry : entries_) {
    const std::vector<double> seen = doubles_of(kernels, entry.sums);
    const size_t channels = seen.size() / 2;
    const auto n = static_cast<double>(entry.values);
    pooled[0] += n;
    for (size_t c = 0; c < channels; ++c) {
      pooled[1 + c] += n * seen[c];
      pooled[1 + channels + c] += (n - 1.0) * seen[channels + c] + n * seen[c] * seen[c];
    }
    pooled = pooled.subspan(1 + 2 * channels);
  }
}

void RunningStatistics::replace(const Kernels& kernels, std::span<const double> pooled) {
  QN_ASSERT(pooled.size() == pooled_size());
  for (const Entry& entry : entries_) {
    const auto channels = static_cast<size_t>(entry.norm.mean->shape.elements());
    const double n = pooled[0];
    std::vector<float> mean(channels), var(channels);
    for (size_t c = 0; c < channels; ++c) {
      const double m = pooled[1 + c] / n, squares = pooled[1 + channels + c] - n * m * m;
      mean[c] = static_cast<float>(m);
      var[c] = static_cast<float>(std::max(squares, 0.0) / std::max(n - 1.0, 1.0));
    }
    for (const auto& [average, values] : {std::pair{entry.norm.mean, &mean}, {entry.norm.var, &var}})
      upload(kernels, average->value.view(), view_of(values->data(), average->shape));
    pooled = pooled.subspan(1 + 2 * channels);
  }
}

bool RunningStatistics::owns(const ModuleBuffer* buffer) const {
  return std::any_of(entries_.begin(), entries_.end(),
                     [&](const Entry& entry) { return entry.norm.mean == buffer || entry.norm.var == buffer; });
}

void RunningStatistics::fold(const Kernels& kernels) {
  for (const Entry& entry : entries_) fold_norm(kernels, entry.norm);
}

}  // namespace qn
