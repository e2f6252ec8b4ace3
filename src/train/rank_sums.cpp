#include "train/rank_sums.h"

#include "ops/host_access.h"

namespace qn {

void RankSums::sum(const Tensor& values) const {
  if (comm_.size() == 1) return;
  if (device_ != nullptr) {
    device_->start_all_reduce_sum(values);
    return device_->join();
  }
  edit_on_host(kernels_, values, [&](const Tensor& host) {
    if (host.dtype == DType::f64)
      comm_.all_reduce_sum(host.span<double>());
    else
      comm_.all_reduce_sum(host.span<float>());
  });
}

}  // namespace qn
