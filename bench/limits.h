// What the machine can do, measured in this program run with the threads in use: the yardstick for every other figure.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "ops/kernels.h"

namespace qn::bench {

/// Copy rate for a working set of some size: small sets live in caches.
struct CopyRate {
  size_t bytes = 0;   ///< source and target together, all threads of this rank
  double gbps = 0.0;  ///< bytes read plus bytes written
};

/// All ranks together: they measure at the same time, and their rates are added up.
struct Limits {
  int ranks = 1, threads = 1;   ///< threads of each rank
  std::string simd;             ///< the instructions that oneDNN's products may use; empty for a device
  double matmul_gflops = 0.0;   ///< best fp32 matrix product, oneDNN
  double fma_gflops = 0.0;      ///< fp32 multiply-adds on registers only
  std::vector<CopyRate> copy;   ///< by rising size; the last one is memory, far beyond any cache
  double allreduce_gbps = 0.0;  ///< bytes of the vector per second; 0 with one rank

  double memory_gbps() const { return copy.back().gbps; }
  /// The rate for a working set of `bytes`: that of the next larger measured size.
  double copy_gbps(size_t bytes) const;
};

/// The same for a device: products of activations of type `dtype`, copies from 1 MiB to 1 GiB (or to `largest`),
/// through its kernels. No fma_gflops. Takes a second or two.
Limits measure_device_limits(const Kernels& kernels, DType dtype, Communicator& comm, size_t largest = size_t{1} << 30);

/// Takes about 20 * `seconds`. Collective.
Limits measure_limits(Communicator& comm, double seconds = 0.15);

/// Without the copy rates and with no more than `seconds` each: for programs that report multiplications only.
Limits measure_arithmetic(Communicator& comm, double seconds = 0.3);

}  // namespace qn::bench
