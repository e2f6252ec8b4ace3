#include "train/precision.h"

#include <spdlog/spdlog.h>

#include "core/cpu_features.h"
#include "ops/host_access.h"

namespace qn {

DType activation_type(const std::string& name, bool hardware) {
  if (name == precision::kFp32) return DType::f32;
  if (name == precision::kFp16) return DType::f16;
  QN_ASSERT(name == precision::kBf16 || name == precision::kBf16Always, "precision '{}'", name);
  if (hardware || name == precision::kBf16Always) return DType::bf16;
  spdlog::warn(
      "computing in fp32 instead of bf16: this processor has no instructions for bf16 matrices (AVX512_BF16, "
      "AMX_BF16). "
      "Results are as good as in bf16 or better; precision {} would insist on bf16, which only costs time here",
      precision::kBf16Always);
  return DType::f32;
}

DType activation_type(const std::string& name, const Kernels& kernels, Communicator& comm) {
  const bool on_cpu = on_host(kernels);  // every GPU that we compile for has them
  QN_CHECK(!on_cpu || name != precision::kFp16,
           "fp16 is for GPUs (--device cuda): on this processor compute in fp32, or in bf16 if it is fast at it");
  double missing = on_cpu && !cpu_multiplies_bf16() ? 1.0 : 0.0;
  comm.all_reduce_max({&missing, 1});
  return activation_type(name, missing == 0.0);
}

const char* precision_name(DType dtype) {
  switch (dtype) {
    case DType::bf16:
      return "bf16";
    case DType::f16:
      return "fp16";
    case DType::f64:
      return "fp64";
    default:
      return "fp32";
  }
}

}  // namespace qn
