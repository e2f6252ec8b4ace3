// The precision that a run computes in: `train.precision` of a configuration, `--precision` of eval.
#pragma once

#include "comm/communicator.h"
#include "core/enum_names.h"
#include "core/tensor.h"
#include "ops/kernels.h"

namespace qn {

enum class Precision {
  fp32,
  tf32,         ///< fp32, but GPUs round the operands of matrix products to TF32 (10 bits of mantissa); as fp32 on CPUs
  bf16,         ///< where every rank's processor has instructions for it, else fp32
  bf16_always,  ///< on any processor, however slow: the same arithmetic everywhere
  fp16          ///< with dynamic loss scaling; GPUs only
};
template <>
struct EnumNames<Precision> {
  static constexpr EnumName<Precision> kAll[] = {{Precision::fp32, "fp32"},
                                                 {Precision::tf32, "tf32"},
                                                 {Precision::bf16, "bf16"},
                                                 {Precision::bf16_always, "bf16_always"},
                                                 {Precision::fp16, "fp16"}};
};

/// The type of activations and matrix operands for a precision. `hardware`: all ranks multiply bf16 matrices
/// in hardware. Where `bf16` has to become fp32 a warning says so. Parameters are fp32 in any case.
DType activation_type(Precision precision, bool hardware);
/// The same on the devices of all ranks; collective. Throws qn::Error for fp16 where the device does not have it.
DType activation_type(Precision precision, const Kernels& kernels, Communicator& comm);
/// From here on, fp32 products on this process's GPU use TF32 or do not, as the precision says; on CPUs a warning says
/// that tf32 has no effect.
void set_product_precision(Precision precision, const Kernels& kernels);

/// What to call it in a log: "bf16", "fp16", "fp32", "fp32 with TF32 products".
const char* precision_text(Precision precision, DType dtype, const Kernels& kernels);

}  // namespace qn
