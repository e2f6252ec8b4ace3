// The sizes of a two-dimensional convolution.
#pragma once

#include <algorithm>
#include <cstdint>

namespace qn {

/// Zeros before and behind the pixels of an axis.
struct Padding {
  int64_t before = 0, behind = 0;
};

/// PyTorch's padding for a kernel of odd size: the same on both sides.
inline Padding torch_padding(int64_t kernel) { return {kernel / 2, kernel / 2}; }
/// TensorFlow's "same": ceil(size / stride) results; where the padding is odd, the larger half is behind.
inline Padding same_padding(int64_t size, int64_t kernel, int64_t stride) {
  const int64_t results = (size + stride - 1) / stride;
  const int64_t padding = std::max<int64_t>((results - 1) * stride + kernel - size, 0);
  return {padding / 2, padding - padding / 2};
}

/// Images x [batch, height, width, in], weights [out, in / groups, kernel_h, kernel_w], result [batch, out_height(),
/// out_width(), out]. `stride` is of both axes.
struct ConvShape {
  int64_t batch = 0, height = 0, width = 0, in = 0, out = 0, groups = 1, kernel_h = 1, kernel_w = 1, stride = 1;
  int64_t pad_top = 0, pad_bottom = 0, pad_left = 0, pad_right = 0;

  int64_t out_height() const { return (height + pad_top + pad_bottom - kernel_h) / stride + 1; }
  int64_t out_width() const { return (width + pad_left + pad_right - kernel_w) / stride + 1; }
  int64_t in_per_group() const { return in / groups; }
  int64_t out_per_group() const { return out / groups; }
  int64_t weights() const { return out * in_per_group() * kernel_h * kernel_w; }
  /// A linear map of every pixel.
  bool pointwise() const {
    return groups == 1 && kernel_h == 1 && kernel_w == 1 && stride == 1 && pad_top == 0 && pad_bottom == 0 &&
           pad_left == 0 && pad_right == 0;
  }
  /// A filter of its own for every channel.
  bool depthwise() const { return groups == in && groups == out; }

  void pad(Padding rows, Padding columns) {
    pad_top = rows.before;
    pad_bottom = rows.behind;
    pad_left = columns.before;
    pad_right = columns.behind;
  }
  auto operator<=>(const ConvShape&) const = default;
};

}  // namespace qn
