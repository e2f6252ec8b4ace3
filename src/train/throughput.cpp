#include "train/throughput.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <optional>

#include "core/text.h"
#include "ops/device.h"
#include "ops/work.h"

namespace qn {
namespace {

/// Standard normal values: constants would let a GPU compute faster than training does, as they cost less power.
OwnedTensor random_matrix(int64_t rows, int64_t cols, const Kernels& kernels, DType dtype, uint64_t id) {
  const RandomStream random({.seed = 1, .purpose = Purpose::test, .id = id});
  std::vector<float> values(static_cast<size_t>(std::min<int64_t>(rows * cols, int64_t{1} << 16)));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(random.normal(i));
  std::vector<float> all(static_cast<size_t>(rows * cols));
  for (size_t i = 0; i < all.size(); ++i) all[i] = values[i % values.size()];
  const OwnedTensor masters({rows, cols}, DType::f32, *kernels.memory);
  kernels.upload(masters.view().data, all.data(), masters.view().bytes());
  OwnedTensor result({rows, cols}, dtype, *kernels.memory);
  kernels.copy(result.view(), masters.view());
  return result;
}

/// 4.546e6 -> "4.546 MFLOP".
std::string format_flops(double flops) {
  const bool tera = flops >= 1e12, giga = flops >= 1e9;
  return fmt::format("{:.4g} {}FLOP", flops * (tera ? 1e-12 : giga ? 1e-9 : 1e-6), tera ? 'T' : giga ? 'G' : 'M');
}

/// `product` small enough to be measured in a moment: its longest sides are halved.
ProductShape shortened(ProductShape product, const Kernels& kernels) {
  const double most = Device(kernels).on_host() ? 1e9 : 1e12;
  while (2.0 * static_cast<double>(product.m) * static_cast<double>(product.n) * static_cast<double>(product.k) > most)
    for (int64_t* side : {&product.m, &product.n, &product.k})
      if (*side == std::max({product.m, product.n, product.k})) {
        *side = (*side + 1) / 2;
        break;
      }
  return product;
}

}  // namespace

PassWork measure_work(Module& module, const Kernels& kernels, DType dtype, int64_t count,
                      const std::function<MicroBatch(int64_t)>& fetch) {
  DryWork dry(kernels);
  Arena arena(*kernels.memory);
  Tape tape(dry.kernels(), arena, dtype, {});
  PassWork work;
  module.parameters().begin_gradients();
  dry.begin();
  for (int64_t i = 0; i < count; ++i) {
    const MicroBatch micro = fetch(i);
    work.sample_size += micro.sample_size;
    tape.restart({.training = true, .recording = true, .micro_batch = static_cast<uint32_t>(i)});
    micro.losses(tape);
    tape.backward();
    arena.reset();
  }
  work.flops = dry.flops();
  work.product = dry.largest_product();
  return work;
}

MatmulRate measure_matmul_rate(const ProductShape& product, const Kernels& kernels, DType dtype) {
  using Clock = std::chrono::steady_clock;
  constexpr double kSeconds = 0.15;
  constexpr int kBatches = 5, kMostCalls = 2000;
  const ProductShape p = shortened(product, kernels);
  const auto matrix = [&](int64_t rows, int64_t cols, bool transposed, uint64_t id) {
    return random_matrix(transposed ? cols : rows, transposed ? rows : cols, kernels, dtype, id);
  };
  const OwnedTensor a = matrix(p.m, p.k, p.transpose_a, 1), b = matrix(p.k, p.n, p.transpose_b, 2);
  const OwnedTensor c({p.m, p.n}, dtype, *kernels.memory);
  const MatmulArgs args{.dtype = dtype,
                        .dtype_c = dtype,
                        .transpose_a = p.transpose_a,
                        .transpose_b = p.transpose_b,
                        .m = p.m,
                        .n = p.n,
                        .k = p.k,
                        .a = a.view().data,
                        .lda = a.view().cols(),
                        .b = b.view().data,
                        .ldb = b.view().cols(),
                        .c = c.view().data,
                        .ldc = p.n};
  std::array<std::byte, 2> seen{};
  const auto seconds_of = [&](int calls) {
    const auto start = Clock::now();
    for (int i = 0; i < calls; ++i) kernels.matmul(args);
    kernels.download(seen.data(), c.view().data, seen.size());  // waits for the products
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  seconds_of(2);  // plans, clocks, pages
  const int calls = std::clamp(static_cast<int>(kSeconds / kBatches / std::max(seconds_of(1), 1e-9)), 1, kMostCalls);
  std::array<double, kBatches> seconds{};
  for (double& s : seconds) s = seconds_of(calls);
  return {p, static_cast<double>(calls) * matmul_work(args).flops / *std::min_element(seconds.begin(), seconds.end())};
}

Throughput::Throughput(const PassWork& work, const TrainConfig& config, const Kernels& kernels, DType dtype,
                       Communicator& comm)
    : flops_per_sample_(work.flops / static_cast<double>(std::max<int64_t>(work.sample_size, 1))), ranks_(comm.size()) {
  const bool wanted = config.measure_matmul == MeasureMatmul::always ||
                      (config.measure_matmul == MeasureMatmul::automatic && !Device(kernels).on_host());
  if (!wanted) return;
  comm.barrier();
  const MatmulRate rate = measure_matmul_rate(work.product, kernels, dtype);
  matmul_rate_ = comm.all_reduce_sum_value(rate.flops_per_second);
  product_ = fmt::format("[{}, {}] x [{}, {}] in {}", rate.product.m, rate.product.k, rate.product.k, rate.product.n,
                         precision_text(config.precision, dtype, kernels));
}

double Throughput::utilisation(int64_t samples, double seconds) const {
  if (matmul_rate_ <= 0.0 || seconds <= 0.0) return 0.0;
  return flops_per_sample_ * static_cast<double>(samples) / seconds / matmul_rate_;
}

std::string Throughput::text(const std::string& sample) const {
  std::string text = fmt::format("work: {} per {}, forward and backward", format_flops(flops_per_sample_), sample);
  if (matmul_rate_ > 0.0)
    text += fmt::format("; measured {}/s{} for {}, to which MFU refers", format_flops(matmul_rate_),
                        ranks_ > 1 ? fmt::format(" on {} ranks together", ranks_) : "", product_);
  return text;
}

std::string memory_text(const ParameterStore& store, const Optimizer& optimizer, const ModelAverage* average,
                        const Arena& activations, const Kernels& kernels) {
  std::string text =
      fmt::format("memory: parameters {}, gradients {}, optimizer {}", format_bytes(store.values().bytes()),
                  format_bytes(store.grads().bytes()), format_bytes(optimizer.bytes()));
  if (average != nullptr) text += fmt::format(", averages {}", format_bytes(average->bytes()));
  text += fmt::format(", activations {}", format_bytes(activations.peak()));
  if (const std::optional<DeviceMemory> use = Device(kernels).memory())
    text += fmt::format(", scratch {}; {} of the GPU's {} are free", format_bytes(use->scratch),
                        format_bytes(use->free), format_bytes(use->total));
  return text;
}

}  // namespace qn
