// The precision that a run computes in: `train.precision` of a configuration, `--precision` of eval.
#pragma once

#include <string>

#include "comm/communicator.h"
#include "core/tensor.h"
#include "ops/kernels.h"

namespace qn {

namespace precision {
inline constexpr const char* kFp32 = "fp32";
/// fp32, but GPUs round the operands of matrix products to TF32 (10 bits of mantissa). No effect on CPUs.
inline constexpr const char* kTf32 = "tf32";
/// bf16 where every rank's processor has instructions for it, else fp32.
inline constexpr const char* kBf16 = "bf16";
/// bf16 on any processor, however slow: the same arithmetic everywhere.
inline constexpr const char* kBf16Always = "bf16_always";
/// fp16 with dynamic loss scaling; GPUs only.
inline constexpr const char* kFp16 = "fp16";
}  // namespace precision

/// The type of activations and matrix operands for one of the names above. `hardware`: all ranks multiply bf16 matrices
/// in hardware. Where `bf16` has to become fp32 a warning says so. Parameters are fp32 in any case.
DType activation_type(const std::string& name, bool hardware);
/// The same on the devices of all ranks; collective. From here on, fp32 products on this process's GPU use TF32 or do
/// not, as the name says; on CPUs a warning says that tf32 has no effect. Throws qn::Error for fp16 on CPUs.
DType activation_type(const std::string& name, const Kernels& kernels, Communicator& comm);

/// What to call it in a log: "bf16", "fp16", "fp32", "fp32 with TF32 products".
const char* precision_text(const std::string& name, DType dtype, const Kernels& kernels);

}  // namespace qn
