// The CPU kernels with a counter before each: shows which members of the table some code reaches.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "ops/kernels.h"

namespace qn::test {

/// Every member of Kernels. The assertion below fails to compile when one is missing here.
// The formatter never settles on the continuation marks.
// clang-format off
#define QN_EACH_KERNEL(X)                                                                            \
  X(fill) X(copy) X(axpy) X(matmul) X(add_bias) X(bias_grad) X(layer_norm) X(layer_norm_grad)        \
  X(keep_bits) X(masked_axpy) X(residual_add) X(activation) X(activation_grad) X(gather_rows)        \
  X(scatter_add_rows) X(scatter_rows) X(attention) X(attention_grad) X(cross_entropy) X(log_softmax) \
  X(block_noise) X(pq_decode) X(pq_centroid_grad) X(sum_of_squares) X(nag_step) X(adam_step)
// clang-format on

template <auto Member>
struct CountedKernel;

template <typename R, typename... A, R (*Kernels::*Member)(A...)>
struct CountedKernel<Member> {
  static inline int64_t calls = 0;
  static R call(A... args) {
    ++calls;
    return (cpu_kernels().*Member)(std::forward<A>(args)...);
  }
};

inline const Kernels& counting_kernels() {
#define QN_ENTRY(name) .name = CountedKernel<&Kernels::name>::call,
  static const Kernels table{.backend = "counting cpu", QN_EACH_KERNEL(QN_ENTRY)};
#undef QN_ENTRY
  return table;
}

/// Calls so far by kernel.
inline std::map<std::string, int64_t> kernel_calls() {
#define QN_ENTRY(name) {#name, CountedKernel<&Kernels::name>::calls},
  return {QN_EACH_KERNEL(QN_ENTRY)};
#undef QN_ENTRY
}

#define QN_ENTRY(name) +1
static_assert(sizeof(Kernels) == (1 + (0 QN_EACH_KERNEL(QN_ENTRY))) * sizeof(void*),
              "name the new kernel in QN_EACH_KERNEL and give it an entry in ops_table.cpp");
#undef QN_ENTRY

}  // namespace qn::test
