// The CPU kernels with a counter before each: shows which members of the table some code reaches.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "ops/kernel_list.h"

namespace qn::test {

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
  static const Kernels table{.backend = "counting cpu",
                             .memory = &host_memory(),
                             .transfer = &host_memory(),
                             .graphs = nullptr,
                             .from_codes = true,
                             QN_EACH_KERNEL(QN_ENTRY)};
#undef QN_ENTRY
  return table;
}

/// Calls so far by kernel.
inline std::map<std::string, int64_t> kernel_calls() {
#define QN_ENTRY(name) {#name, CountedKernel<&Kernels::name>::calls},
  return {QN_EACH_KERNEL(QN_ENTRY)};
#undef QN_ENTRY
}

}  // namespace qn::test
