// What the kernels that oneDNN computes have in common.
#pragma once

#include <oneapi/dnnl/dnnl.hpp>

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

}  // namespace qn::cpu
