// How host code reads and writes tensors that may live in a device's memory. Where they live in the host's, nothing is
// copied.
#pragma once

#include <span>

#include "ops/device.h"

namespace qn {

/// Whether host code may follow pointers into the backend's memory.
inline bool on_host(const Kernels& kernels) { return Device(kernels).on_host(); }

/// Overwrites `to` with a host tensor of the same shape and type.
void upload(const Kernels& kernels, const Tensor& to, const Tensor& from_host);
/// The elements in host memory of their own, of the kind that copies reach fastest.
OwnedTensor download(const Kernels& kernels, const Tensor& from);

/// A tensor's elements for host code to read: the tensor itself if it is in host memory, else a copy made now.
class HostView {
 public:
  HostView(const Kernels& kernels, const Tensor& tensor);
  const Tensor& view() const { return view_; }
  template <typename T>
  std::span<const T> span() const {
    return view_.span<T>();
  }

 private:
  OwnedTensor copy_;
  Tensor view_;
};

/// Calls write(host), a host tensor of the same shape and type whose content is unspecified, and puts what it leaves
/// there into `tensor`.
template <typename F>
void write_on_host(const Kernels& kernels, const Tensor& tensor, F&& write) {
  if (on_host(kernels)) return write(tensor);
  const OwnedTensor host(tensor.shape, tensor.dtype);
  write(host.view());
  upload(kernels, tensor, host.view());
}

/// As write_on_host(), but the host tensor holds the current elements.
template <typename F>
void edit_on_host(const Kernels& kernels, const Tensor& tensor, F&& edit) {
  if (on_host(kernels)) return edit(tensor);
  const OwnedTensor host = download(kernels, tensor);
  edit(host.view());
  upload(kernels, tensor, host.view());
}

/// Host data where kernels can read it: itself on a host backend, a copy made at first use on a device.
template <typename T>
class DeviceCopy {
 public:
  /// `values` must be the same in every call, but for update().
  const T* of(const Kernels& kernels, std::span<const T> values) {
    if (on_host(kernels)) return values.data();
    if (memory_ != kernels.memory) {
      buffer_ = Buffer(values.size_bytes(), *kernels.memory);
      kernels.upload(buffer_.data(), values.data(), values.size_bytes());
      memory_ = kernels.memory;
    }
    return reinterpret_cast<const T*>(buffer_.data());
  }
  /// `values` have changed, in place; so do those of a copy, whose address kernels may have been recorded with.
  void update(const Kernels& kernels, std::span<const T> values) {
    if (memory_ == kernels.memory) kernels.upload(buffer_.data(), values.data(), values.size_bytes());
  }

 private:
  Buffer buffer_;
  const Memory* memory_ = nullptr;
};

}  // namespace qn
