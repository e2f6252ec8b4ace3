#include "ops/cpu/cpu_kernels.h"

namespace qn {

const Kernels& cpu_kernels() {
  static const Kernels table{
      .backend = "cpu",
      .memory = &host_memory(),
      .upload = cpu::upload,
      .download = cpu::download,
      .fill = cpu::fill,
      .copy = cpu::copy,
      .axpy = cpu::axpy,
      .matmul = cpu::matmul,
      .add_bias = cpu::add_bias,
      .bias_grad = cpu::bias_grad,
      .layer_norm = cpu::layer_norm,
      .layer_norm_grad = cpu::layer_norm_grad,
      .keep_bits = cpu::keep_bits,
      .masked_axpy = cpu::masked_axpy,
      .residual_add = cpu::residual_add,
      .activation = cpu::activation,
      .activation_grad = cpu::activation_grad,
      .gather_rows = cpu::gather_rows,
      .scatter_add_rows = cpu::scatter_add_rows,
      .scatter_rows = cpu::scatter_rows,
      .attention = cpu::attention,
      .attention_grad = cpu::attention_grad,
      .cross_entropy = cpu::cross_entropy,
      .log_softmax = cpu::log_softmax,
      .block_noise = cpu::block_noise,
      .pq_decode = cpu::decode_pq,
      .pq_centroid_grad = cpu::grad_pq_centroids,
      .sum_of_squares = cpu::sum_of_squares,
      .nag_step = cpu::nag_step,
      .adam_step = cpu::adam_step,
  };
  return table;
}

}  // namespace qn
