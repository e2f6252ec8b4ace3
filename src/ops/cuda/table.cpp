#include "ops/cuda/context.h"
#include "ops/cuda/cuda_kernels.h"

namespace qn::cuda {

void upload(void* to, const void* from_host, size_t bytes) { Context::current().upload(to, from_host, bytes); }
void download(void* to_host, const void* from, size_t bytes) { Context::current().download(to_host, from, bytes); }

const Kernels& table() {
  static const Kernels kernels{
      .backend = "cuda",
      .memory = &device_memory(),
      .upload = upload,
      .download = download,
      .fill = fill,
      .copy = copy,
      .axpy = axpy,
      .matmul = matmul,
      .add_bias = add_bias,
      .bias_grad = bias_grad,
      .layer_norm = layer_norm,
      .layer_norm_grad = layer_norm_grad,
      .keep_bits = keep_bits,
      .masked_axpy = masked_axpy,
      .residual_add = residual_add,
      .activation = activation,
      .activation_grad = activation_grad,
      .gather_rows = gather_rows,
      .scatter_add_rows = scatter_add_rows,
      .scatter_rows = scatter_rows,
      .attention = attention,
      .attention_grad = attention_grad,
      .cross_entropy = cross_entropy,
      .log_softmax = log_softmax,
      .block_noise = block_noise,
      .pq_decode = pq_decode,
      .pq_centroid_grad = pq_centroid_grad,
      .sum_of_squares = sum_of_squares,
      .nag_step = nag_step,
      .adam_step = adam_step,
  };
  return kernels;
}

}  // namespace qn::cuda
