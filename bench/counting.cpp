#include "bench/counting.h"

#include <utility>

namespace qn::bench {
namespace {

// Kernels are plain functions, so the count has to be global.
double g_flops = 0.0;
Kernels g_backend, g_counted;

void counted_matmul(const MatmulArgs& args) {
  g_flops += matmul_flops(args);
  g_backend.matmul(args);
}

void counted_attention(const Tensor& out, const Tensor& lse, const Tensor& qkv, const AttentionArgs& args) {
  g_flops += attention_flops(args);
  g_backend.attention(out, lse, qkv, args);
}

void counted_attention_grad(const Tensor& dqkv, const Tensor& dout, const Tensor& out, const Tensor& lse,
                            const Tensor& qkv, const AttentionArgs& args) {
  g_flops += attention_grad_flops(args);
  g_backend.attention_grad(dqkv, dout, out, lse, qkv, args);
}

}  // namespace

double attention_flops(const AttentionArgs& args) {
  const auto time = static_cast<double>(args.time);
  const double pairs = args.causal ? time * (time + 1.0) / 2.0 : time * time;
  return 4.0 * static_cast<double>(args.batch * args.heads * args.head_dim) * pairs;
}

double attention_grad_flops(const AttentionArgs& args) { return 2.0 * attention_flops(args); }

const Kernels& counting_kernels(const Kernels& backend) {
  g_backend = g_counted = backend;
  g_counted.matmul = counted_matmul;
  g_counted.attention = counted_attention;
  g_counted.attention_grad = counted_attention_grad;
  return g_counted;
}

double take_flops() { return std::exchange(g_flops, 0.0); }

}  // namespace qn::bench
