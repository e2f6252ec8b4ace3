// The CUDA backend's kernels, one declaration per entry of the Kernels table; see ops/kernels.h for what each does.
#pragma once

#include "ops/kernels.h"

namespace qn::cuda {

void upload(void* to, const void* from_host, size_t bytes);
void download(void* to_host, const void* from, size_t bytes);
void fill(const Tensor& x, double value);
void copy(const Tensor& y, const Tensor& x);
void axpy(const Tensor& y, const Tensor& x, double scale, int beta);
void matmul(const MatmulArgs& args);
void add_bias(const Tensor& y, int64_t column, const Tensor& bias);
void bias_grad(const Tensor& dbias, const Tensor& dy, int64_t column, int beta);
void layer_norm(const Tensor& y, const Tensor& mean, const Tensor& rstd, const Tensor& x, const Tensor& weight,
                const Tensor& bias, double eps);
void layer_norm_grad(const Tensor& dx, int beta_x, const Tensor& dweight, int beta_w, const Tensor& dbias, int beta_b,
                     const Tensor& dy, const Tensor& x, const Tensor& mean, const Tensor& rstd, const Tensor& weight);
void keep_bits(uint64_t* bits, int64_t n, double p, const RandomKey& key);
void masked_axpy(const Tensor& y, const Tensor& x, const uint64_t* bits, double scale, int beta);
void residual_add(const Tensor& y, const Tensor& residual, const Tensor& x, const Tensor& bias, const uint64_t* bits,
                  double scale);
void activation(const Tensor& y, const Tensor& x, const Tensor& bias, Activation kind, const uint64_t* bits,
                double scale);
void activation_grad(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& bias, Activation kind,
                     const uint64_t* bits, double scale);
void gather_rows(const Tensor& y, const Tensor& table, const int32_t* ids, double scale);
void scatter_add_rows(const Tensor& table, const Tensor& x, const int32_t* ids, double scale, int32_t skip_id);
void scatter_rows(const Tensor& y, const Tensor& x, const int32_t* rows, double scale);
void attention(const Tensor& out, const Tensor& lse, const Tensor& qkv, const AttentionArgs& args);
void attention_grad(const Tensor& dqkv, const Tensor& dout, const Tensor& out, const Tensor& lse, const Tensor& qkv,
                    const AttentionArgs& args);
void cross_entropy(const Tensor& losses, const Tensor& logits, const int32_t* targets, const int32_t* rows,
                   bool write_grad);
void log_softmax(const Tensor& y, const Tensor& x);
void block_noise(const Tensor& y, const Tensor& w, int64_t block, double p, const RandomKey& key);
void pq_decode(const Tensor& w, const Tensor& centroids, const uint16_t* codes);
void pq_centroid_grad(const Tensor& dcentroids, const Tensor& dw, const uint16_t* codes, const int64_t* counts,
                      int beta);
double sum_of_squares(const Tensor& x);
void nag_step(const Tensor& p, const Tensor& velocity, const Tensor& g, const NagStep& step);
void adam_step(const Tensor& p, const Tensor& m, const Tensor& v, const Tensor& g, const AdamStep& step);

/// Whether the program has code for the thread's device.
bool has_code_for_device();

const Kernels& table();

}  // namespace qn::cuda
