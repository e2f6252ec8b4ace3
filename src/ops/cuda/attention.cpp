// Which way attention is computed.
#include "ops/cuda/attention.h"

#include "ops/cuda/check.h"
#include "ops/cuda/cuda_kernels.h"

namespace qn::cuda {
namespace {

bool are_aligned(std::initializer_list<const Tensor*> tensors) {
  return std::all_of(tensors.begin(), tensors.end(),
                     [](const Tensor* t) { return reinterpret_cast<uintptr_t>(t->data) % 16 == 0; });
}

/// Bytes of shared memory that a block may ask for on the thread's device.
size_t shared_memory_limit() {
  int device = 0, bytes = 0;
  QN_CUDA_CHECK(cudaGetDevice(&device));
  QN_CUDA_CHECK(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  return static_cast<size_t>(bytes);
}

bool is_fused(const AttentionArgs& args, DType dtype) {
  return (dtype == DType::bf16 || dtype == DType::f16) && is_fused_head_dim(args.head_dim) &&
         fused_attention_shared_bytes(args.head_dim) <= shared_memory_limit();
}

}  // namespace

void attention(const Tensor& out, const Tensor& lse, const Tensor& q, const Tensor& kv, const AttentionArgs& args) {
  const ScratchScope scope(Context::current().scratch());
  const bool fused = is_fused(args, q.dtype) && are_aligned({&out, &q, &kv});
  (fused ? fused_attention : plain_attention)(out, lse, q, kv, args);
}

void attention_grad(const Tensor& dq, const Tensor& dkv, const Tensor& dout, const Tensor& out, const Tensor& lse,
                    const Tensor& q, const Tensor& kv, const AttentionArgs& args) {
  const ScratchScope scope(Context::current().scratch());
  const bool fused = is_fused(args, q.dtype) && are_aligned({&dq, &dkv, &dout, &out, &q, &kv});
  (fused ? fused_attention_grad : plain_attention_grad)(dq, dkv, dout, out, lse, q, kv, args);
}

}  // namespace qn::cuda
