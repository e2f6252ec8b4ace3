// What the kernels that oneDNN computes have in common.
#pragma once

#include <oneapi/dnnl/dnnl.hpp>
#include <vector>

namespace qn::cpu {

inline const dnnl::engine& onednn_engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

/// The calling thread's.
inline dnnl::stream& onednn_stream() {
  static thread_local dnnl::stream stream(onednn_engine());
  return stream;
}

/// Memory whose place is set before every call.
inline dnnl::memory placeless(const dnnl::memory::desc& desc) { return {desc, onednn_engine(), nullptr}; }

template <typename T>
T* at_least(std::vector<T>& scratch, int64_t n) {
  if (scratch.size() < static_cast<size_t>(n)) scratch.resize(static_cast<size_t>(n));
  return scratch.data();
}

}  // namespace qn::cpu
