#include "nn/running_statistics.h"

namespace qn {

RunningStatistics::Entry* RunningStatistics::add(ModuleBuffer* mean, ModuleBuffer* var, double momentum) {
  QN_ASSERT(mean->shape == var->shape);
  entries_.push_back({mean, var, momentum, elements_, {}});
  elements_ += 2 * mean->shape.elements();
  return &entries_.back();
}

void RunningStatistics::allocate(DType dtype, const Kernels& kernels) {
  if (empty()) return;
  sums_ = OwnedTensor({elements_, 1}, dtype, *kernels.memory);
  for (Entry& entry : entries_) {
    const int64_t channels = entry.mean->shape.elements();
    entry.sums = sums().row_slice(entry.offset, 2 * channels).reshaped({2, channels});
  }
}

void RunningStatistics::apply(const Kernels& kernels, int64_t micro_batches) {
  for (const Entry& entry : entries_) {
    const double share = entry.momentum / static_cast<double>(micro_batches);
    int64_t row = 0;
    for (const ModuleBuffer* average : {entry.mean, entry.var}) {
      const Tensor &value = average->value.view(), seen = entry.sums.row_slice(row++, 1).reshaped(value.shape);
      kernels.axpy(value, value, 1.0 - entry.momentum, 0);
      kernels.axpy(value, seen, share, 1);
    }
  }
}

}  // namespace qn
