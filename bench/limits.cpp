#include "bench/limits.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <functional>

#include "bench/synthetic.h"
#include "core/tensor.h"
#include "ops/cuda/backend.h"
#include "ops/device.h"
#include "ops/work.h"

namespace qn::bench {
namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// Seconds of the fastest of the calls that fit into `seconds` (at least two; the first one warms up).
double fastest(double seconds, const std::function<void()>& call) {
  call();
  const auto start = Clock::now();
  double best = 1e30;
  do {
    const auto begin = Clock::now();
    call();
    best = std::min(best, since(begin));
  } while (since(start) < seconds);
  return best;
}

// A vector register without intrinsics: the compiler maps it to whatever the build's processor has.
#ifdef __AVX512F__
constexpr int kVectorBytes = 64;
#else
constexpr int kVectorBytes = 32;
#endif
using Vector = float __attribute__((vector_size(kVectorBytes)));
constexpr int kLanes = kVectorBytes / 4;
// Enough independent chains to hide the latency of two multiply-add units (2 x 4 cycles), few enough for 16 registers.
constexpr int kChains = 12;
constexpr int64_t kFmaRounds = 1 << 20;

/// 2 * kChains * kLanes operations per round. The factors come from outside so that nothing is computed at compile
/// time, and they keep the values near 1.
[[gnu::noinline]] float fma_rounds(float factor, float term) {
  std::array<Vector, kChains> sums;
  for (int j = 0; j < kChains; ++j) sums[static_cast<size_t>(j)] = Vector{} + static_cast<float>(j);
  const Vector f = Vector{} + factor, t = Vector{} + term;
  for (int64_t i = 0; i < kFmaRounds; ++i)
    for (Vector& sum : sums) sum = sum * f + t;
  float total = 0.0f;
  for (const Vector& sum : sums)
    for (int lane = 0; lane < kLanes; ++lane) total += sum[lane];
  return total;
}

double fma_gflops(double seconds) {
  volatile float factor = 0.999f, term = 0.001f, sink = 0.0f;
  const float f = factor, t = term;
  int threads = 1;
  const double best = fastest(seconds, [&] {
    float total = 0.0f;
#pragma omp parallel reduction(+ : total)
    {
      total += fma_rounds(f, t);
#pragma omp single
      threads = omp_get_num_threads();
    }
    sink = total;
  });
  return 2.0 * kChains * kLanes * static_cast<double>(kFmaRounds) * threads / best * 1e-9;
}

/// The instructions that oneDNN chooses among on this processor.
std::string onednn_simd() {
  switch (dnnl_get_effective_cpu_isa()) {
    case dnnl_cpu_isa_avx2:
      return "avx2";
    case dnnl_cpu_isa_avx2_vnni:
      return "avx2_vnni";
    case dnnl_cpu_isa_avx512_core:
      return "avx512";
    case dnnl_cpu_isa_avx512_core_vnni:
      return "avx512_vnni";
    case dnnl_cpu_isa_avx512_core_bf16:
      return "avx512_bf16";
    case dnnl_cpu_isa_avx512_core_amx:
      return "avx512_amx";
    default:
      return fmt::format("oneDNN's {:#x}", static_cast<unsigned>(dnnl_get_effective_cpu_isa()));
  }
}

double matmul_gflops(double seconds) {
  struct Product {
    int64_t m, n, k;
  };
  // Square-ish, too large for overheads to count and small enough for the second one to stay in the last cache.
  constexpr std::array<Product, 4> kProducts{
      {{768, 768, 768}, {1024, 1024, 1024}, {1536, 1024, 2048}, {2048, 2048, 1024}}};
  double best = 0.0;
  for (const Product& p : kProducts) {
    const OwnedTensor a({p.m, p.k}, DType::f32), b({p.k, p.n}, DType::f32), c({p.m, p.n}, DType::f32);
    std::ranges::fill(a.view().span<float>(), 0.5f);
    std::ranges::fill(b.view().span<float>(), 0.25f);
    const double time = fastest(seconds / kProducts.size(), [&] {
      const dnnl_status_t status = dnnl_sgemm('N', 'N', p.m, p.n, p.k, 1.0f, a.view().as<float>(), p.k,
                                              b.view().as<float>(), p.n, 0.0f, c.view().as<float>(), p.n);
      QN_ASSERT(status == dnnl_success);
    });
    best = std::max(best, 2.0 * static_cast<double>(p.m * p.n * p.k) / time * 1e-9);
  }
  return best;
}

/// Every thread copies its own part of the working set again and again; no thread waits for another in between.
CopyRate copy_rate(size_t bytes, double seconds) {
  const auto threads = static_cast<size_t>(omp_get_max_threads());
  const size_t part = bytes / 2 / threads / 64 * 64;
  Buffer from(part * threads), to(part * threads);
  const auto repeats = std::max<size_t>(1, (size_t{16} << 20) / (part * threads));
  const double best = fastest(seconds, [&] {
#pragma omp parallel num_threads(static_cast <int>(threads))
    {
      const size_t offset = part * static_cast<size_t>(omp_get_thread_num());
      for (size_t i = 0; i < repeats; ++i) {
        std::memcpy(to.data() + offset, from.data() + offset, part);
        // The compiler must not see that the copies are all the same.
        asm volatile("" : : "r"(to.data()), "r"(from.data()) : "memory");
      }
    }
  });
  return {bytes, 2.0 * static_cast<double>(part * threads * repeats) / best * 1e-9};
}

double allreduce_gbps(Communicator& comm, double seconds) {
  if (comm.size() == 1) return 0.0;
  constexpr size_t kElements = size_t{6} << 20, kBucketBytes = size_t{4} << 20;
  std::vector<float> values(kElements, 0.0f);
  const int64_t rounds = std::max<int64_t>(3, static_cast<int64_t>(seconds / 0.02));  // the same on every rank
  double best = 1e30;
  for (int64_t i = 0; i < rounds; ++i) {
    comm.barrier();
    const auto begin = Clock::now();
    all_reduce_in_buckets(comm, std::span(values), kBucketBytes);
    best = std::min(best, since(begin));
  }
  return static_cast<double>(kElements * sizeof(float)) / best * 1e-9;
}

/// `measure` on all ranks at the same time; the sum of their rates.
double together(Communicator& comm, const std::function<double()>& measure) {
  comm.barrier();
  return comm.all_reduce_sum_value(measure());
}

/// Seconds of one of `count` calls that are queued together; the fastest of several such batches.
double fastest_queued(const Kernels& kernels, double seconds, int count, const std::function<void()>& call) {
  return fastest(seconds,
                 [&] {
                   for (int i = 0; i < count; ++i) call();
                   wait_for(kernels);
                 }) /
         count;
}

double device_matmul_gflops(const Kernels& kernels, DType dtype, double seconds) {
  double best = 0.0;
  // As a GPU likes them, and a CPU can bear them.
  const bool gpu = kernels.memory != &host_memory();
  const std::vector<int64_t> sizes = gpu ? std::vector<int64_t>{4096, 8192} : std::vector<int64_t>{1024};
  for (const int64_t n : sizes) {
    const OwnedTensor a = random_tensor(kernels, {n, n}, dtype, 1), b = random_tensor(kernels, {n, n}, dtype, 2);
    const OwnedTensor c({n, n}, dtype, *kernels.memory);
    const MatmulArgs args{.dtype = dtype,
                          .dtype_c = dtype,
                          .transpose_b = true,
                          .m = n,
                          .n = n,
                          .k = n,
                          .a = a.view().data,
                          .lda = n,
                          .b = b.view().data,
                          .ldb = n,
                          .c = c.view().data,
                          .ldc = n};
    const double time = fastest_queued(kernels, seconds, gpu ? 10 : 1, [&] { kernels.matmul(args); });
    best = std::max(best, matmul_work(args).flops / time * 1e-9);
  }
  return best;
}

/// By the driver's own copy, where there is a driver.
CopyRate device_copy_rate(const Kernels& kernels, size_t bytes, double seconds) {
  const auto elements = static_cast<int64_t>(bytes / 2 / sizeof(float));
  const OwnedTensor from({elements}, DType::f32, *kernels.memory), to({elements}, DType::f32, *kernels.memory);
  const int count = std::clamp(static_cast<int>((size_t{512} << 20) / bytes), 1, 100);
  const bool cuda = Device(kernels).is_cuda();
  const double time = fastest_queued(kernels, seconds, count, [&] {
    cuda ? cuda_copy(to.view().data, from.view().data, from.view().bytes()) : kernels.copy(to.view(), from.view());
  });
  return {bytes, static_cast<double>(bytes) / time * 1e-9};
}

}  // namespace

double Limits::copy_gbps(size_t bytes) const {
  for (const CopyRate& rate : copy)
    if (bytes <= rate.bytes) return rate.gbps;
  return memory_gbps();
}

Limits measure_arithmetic(Communicator& comm, double seconds) {
  Limits limits{.ranks = comm.size(), .threads = omp_get_max_threads(), .simd = {}, .copy = {}};
  limits.simd = onednn_simd();
  limits.matmul_gflops = together(comm, [&] { return matmul_gflops(2.0 * seconds); });
  limits.fma_gflops = together(comm, [&] { return fma_gflops(seconds); });
  limits.allreduce_gbps = allreduce_gbps(comm, seconds);
  return limits;
}

Limits measure_device_limits(const Kernels& kernels, DType dtype, Communicator& comm, size_t largest) {
  Limits limits{.ranks = comm.size(), .threads = omp_get_max_threads(), .simd = {}, .copy = {}};
  limits.matmul_gflops = together(comm, [&] { return device_matmul_gflops(kernels, dtype, 0.2); });
  for (size_t bytes = size_t{1} << 20; bytes <= largest; bytes *= 4)
    limits.copy.push_back({bytes, together(comm, [&] { return device_copy_rate(kernels, bytes, 0.1).gbps; })});
  return limits;
}

Limits measure_limits(Communicator& comm, double seconds) {
  Limits limits = measure_arithmetic(comm, 2.0 * seconds);
  for (const size_t kib : {64, 256, 1024, 4096, 16384, 65536, 524288}) {
    CopyRate rate{};
    const double gbps = together(comm, [&] {
      rate = copy_rate(kib << 10, seconds);
      return rate.gbps;
    });
    limits.copy.push_back({kib << 10, gbps});
  }
  return limits;
}

}  // namespace qn::bench
