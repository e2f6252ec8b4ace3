#include "ops/host_access.h"

namespace qn {

void upload(const Kernels& kernels, const Tensor& to, const Tensor& from_host) {
  QN_ASSERT(to.shape == from_host.shape && to.dtype == from_host.dtype, "{} {} into {} {}", name_of(from_host.dtype),
            from_host.shape.to_string(), name_of(to.dtype), to.shape.to_string());
  kernels.upload(to.data, from_host.data, to.bytes());
}

OwnedTensor download(const Kernels& kernels, const Tensor& from) {
  OwnedTensor host(from.shape, from.dtype, *kernels.transfer);
  kernels.download(host.view().data, from.data, from.bytes());
  return host;
}

HostView::HostView(const Kernels& kernels, const Tensor& tensor) : view_(tensor) {
  if (on_host(kernels)) return;
  copy_ = download(kernels, tensor);
  view_ = copy_.view();
}

}  // namespace qn
