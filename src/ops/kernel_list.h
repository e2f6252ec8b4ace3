// The entries of Kernels by name, for what must treat every one of them alike.
#pragma once

#include <type_traits>

#include "ops/kernels.h"

namespace qn {

/// Every function of Kernels, in its order. The assertion below fails to compile when one is missing here.
// The formatter never settles on the continuation marks.
// clang-format off
#define QN_EACH_KERNEL(X)                                                                            \
  X(upload) X(download) X(start_download) X(mark) X(wait)                                            \
  X(fill) X(copy) X(axpy) X(matmul) X(add_bias) X(bias_grad) X(layer_norm) X(layer_norm_grad)        \
  X(normalize_rows) X(normalize_rows_grad)                                                           \
  X(keep_bits) X(masked_axpy) X(residual_add) X(activation) X(activation_grad)                       \
  X(conv2d) X(conv2d_input_grad) X(conv2d_weight_grad) X(average_pool) X(average_pool_grad)          \
  X(scale_channels) X(scale_channels_grad) X(scale_samples) X(batch_norm_sums)                       \
  X(batch_norm_statistics) X(batch_norm) X(batch_norm_grad_sums) X(batch_norm_grad)                  \
  X(batch_norm_fold) X(gather_rows)                                                                  \
  X(scatter_add_rows) X(scatter_rows) X(attention) X(attention_grad) X(cross_entropy) X(log_softmax) \
  X(block_noise) X(replace_blocks) X(fake_quantize) X(fake_quantize_grad) X(value_range)             \
  X(range_to_grid) X(pq_decode) X(pq_centroid_grad) X(scale_rows) X(row_dots) X(add_sum)             \
  X(sum_of_squares) X(decide_update) X(nag_step) X(adam_step) X(sgd_step) X(rmsprop_step)            \
  X(pack_int8) X(matmul_int8) X(matmul_codes) X(lookup_codes) X(decode_codes)
// clang-format on

#define QN_ENTRY(name) +1
inline constexpr size_t kKernels = 0 QN_EACH_KERNEL(QN_ENTRY);
#undef QN_ENTRY

static_assert(sizeof(Kernels) == (5 + kKernels) * sizeof(void*),
              "name the new kernel in QN_EACH_KERNEL and give it an entry in tests/ops/ops_table.cpp");

/// Declares a backend's function for an entry: QN_EACH_KERNEL(QN_DECLARE_KERNEL) in the backend's namespace.
#define QN_DECLARE_KERNEL(name) std::remove_pointer_t<decltype(::qn::Kernels::name)> name;

}  // namespace qn
