#include "train/precision.h"

#include <spdlog/spdlog.h>

#include "ops/device.h"

namespace qn {

DType activation_type(Precision precision, bool hardware) {
  if (precision == Precision::fp32 || precision == Precision::tf32) return DType::f32;
  if (precision == Precision::fp16) return DType::f16;
  if (hardware || precision == Precision::bf16_always) return DType::bf16;
  spdlog::warn(
      "computing in fp32 instead of bf16: this processor has no instructions for bf16 matrices (AVX512_BF16, "
      "AMX_BF16). "
      "Results are as good as in bf16 or better; precision {} would insist on bf16, which only costs time here",
      name_of(Precision::bf16_always));
  return DType::f32;
}

DType activation_type(Precision precision, const Kernels& kernels, Communicator& comm) {
  const Device device(kernels);
  QN_CHECK_USAGE(precision != Precision::fp16 || device.has_fp16(),
                 "fp16 is for GPUs (--device cuda): on this processor compute in fp32, or in bf16 if it is fast at it");
  double missing = device.multiplies_bf16() ? 0.0 : 1.0;
  comm.all_reduce_max({&missing, 1});
  return activation_type(precision, missing == 0.0);
}

void set_product_precision(Precision precision, const Kernels& kernels) {
  const Device device(kernels);
  const bool tf32 = precision == Precision::tf32;
  if (tf32 && !device.has_tf32())
    spdlog::warn("precision tf32 has no effect on the CPU: computing in fp32. GPUs have it (--device cuda)");
  device.use_tf32(tf32);
}

const char* precision_text(Precision precision, DType dtype, const Kernels& kernels) {
  if (dtype == DType::bf16) return "bf16";
  if (dtype == DType::f16) return "fp16";
  return precision == Precision::tf32 && Device(kernels).has_tf32() ? "fp32 with TF32 products" : "fp32";
}

}  // namespace qn
