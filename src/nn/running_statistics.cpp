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

}  // namespace

RunningStatistics::Entry* RunningStatistics::add(const NormParts& norm, double momentum) {
  QN_ASSERT(norm.mean->shape == norm.var->shape && norm.mean->start == 0.0 && norm.var->start == 1.0);
  entries_.push_back({norm, momentum, elements_, {}});
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

void RunningStatistics::blend(const Kernels& kernels, const Entry& entry, int64_t micro_batches, double momentum) {
  int64_t row = 0;
  for (const ModuleBuffer* average : {entry.norm.mean, entry.norm.var}) {
    const Tensor &value = average->value.view(), seen = entry.sums.row_slice(row++, 1).reshaped(value.shape);
    kernels.axpy(value, value, 1.0 - momentum, 0);
    kernels.axpy(value, seen, momentum / static_cast<double>(micro_batches), 1);
  }
}

void RunningStatistics::apply(const Kernels& kernels, int64_t micro_batches) {
  if (frozen_) return;
  for (const Entry& entry : entries_) blend(kernels, entry, micro_batches, entry.momentum);
}

void RunningStatistics::replace(const Kernels& kernels, int64_t micro_batches) {
  for (const Entry& entry : entries_) blend(kernels, entry, micro_batches, 1.0);
}

bool RunningStatistics::owns(const ModuleBuffer* buffer) const {
  return std::any_of(entries_.begin(), entries_.end(),
                     [&](const Entry& entry) { return entry.norm.mean == buffer || entry.norm.var == buffer; });
}

void RunningStatistics::fold(const Kernels& kernels) {
  for (const Entry& entry : entries_) fold_norm(kernels, entry.norm);
}

}  // namespace qn
