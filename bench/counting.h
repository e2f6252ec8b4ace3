// How many multiplications and additions a step needs, and a Kernels table that adds them up.
#pragma once

#include "ops/kernels.h"

namespace qn::bench {

inline double matmul_flops(const MatmulArgs& args) {
  return 2.0 * static_cast<double>(args.m) * static_cast<double>(args.n) * static_cast<double>(args.k);
}
/// Without what a backward recomputes: two products in the forward pass, four in the backward, over the visible
/// (query, key) pairs only.
double attention_flops(const AttentionArgs& args);
double attention_grad_flops(const AttentionArgs& args);

/// The kernels of a backend; calls of matmul and attention are counted. For one thread's use, like the tape, and for
/// one backend at a time: the table is overwritten by the next call.
const Kernels& counting_kernels(const Kernels& backend = cpu_kernels());
/// Multiplications and additions of those calls since the last call of this function.
double take_flops();

}  // namespace qn::bench
