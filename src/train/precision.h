// The precision that a run computes in: `train.precision` of a configuration, `--precision` of eval.
#pragma once

#include <string>

#include "comm/communicator.h"
#include "core/tensor.h"
#include "ops/kernels.h"

namespace qn {

namespace precision {
inline constexpr const char* kFp32 = "fp32";
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
/// The same on the devices of all ranks; collective. Throws qn::Error for fp16 on CPUs.
DType activation_type(const std::string& name, const Kernels& kernels, Communicator& comm);

/// "fp32", "bf16", ...: for the user.
const char* precision_name(DType dtype);

}  // namespace qn
