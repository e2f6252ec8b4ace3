#include "train/throughput.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <numeric>

#include "core/text.h"
#include "nn/layers/bands.h"
#include "ops/cuda/backend.h"
#include "ops/host_access.h"

namespace qn {
namespace {

/// Share of the counted tokens in every band.
std::vector<double> band_shares(const Bands& bands, std::span<const int64_t> counts) {
  std::vector<double> shares(static_cast<size_t>(bands.count()));
  for (size_t i = 0; i < shares.size(); ++i) {
    const auto band = static_cast<int64_t>(i);
    const auto words = counts.subspan(static_cast<size_t>(bands.first(band)), static_cast<size_t>(bands.size(band)));
    shares[i] = static_cast<double>(std::accumulate(words.begin(), words.end(), int64_t{0}));
  }
  const double all = std::accumulate(shares.begin(), shares.end(), 0.0);
  for (double& share : shares) share /= std::max(all, 1.0);
  return shares;
}

/// Elements of the matrices between the token tables and the first layer, per token.
double input_elements(const ModelConfig& config, int64_t width, int64_t vocabulary, std::span<const int64_t> counts) {
  const auto d = static_cast<double>(config.embed_dim), in = static_cast<double>(width);
  double elements = config.noise_projection ? in * in : 0.0;
  if (!config.adaptive.input) return elements + (width == config.embed_dim ? 0.0 : d * in);
  const Bands bands(config.adaptive.cutoffs, vocabulary, width, config.adaptive.factor);
  const std::vector<double> shares = band_shares(bands, counts);
  for (int64_t i = 0; i < bands.count(); ++i)
    elements += shares[static_cast<size_t>(i)] * d * static_cast<double>(bands.dim(i));
  return elements;
}

/// Those after the last layer.
double output_elements(const ModelConfig& config, int64_t width, int64_t vocabulary, std::span<const int64_t> counts) {
  const AdaptiveConfig& adaptive = config.adaptive;
  const auto d = static_cast<double>(config.embed_dim), out = static_cast<double>(width);
  double elements = width != config.embed_dim && !adaptive.tie_weights ? d * out : 0.0;
  if (!adaptive.softmax) return elements + static_cast<double>(vocabulary) * out;
  const Bands bands(adaptive.cutoffs, vocabulary, width, adaptive.factor);
  const std::vector<double> shares = band_shares(bands, counts);
  elements += static_cast<double>(bands.size(0) + bands.count() - 1) * out;
  for (int64_t i = 1; i < bands.count(); ++i)
    elements +=
        shares[static_cast<size_t>(i)] * static_cast<double>(bands.dim(i)) * (out + static_cast<double>(bands.size(i)));
  return elements;
}

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

bool on_gpu(const Kernels& kernels) { return kernels.memory != &host_memory(); }

}  // namespace

double model_flops_per_token(const ModelConfig& config, int64_t vocabulary, int64_t time,
                             std::span<const int64_t> counts) {
  const auto d = static_cast<double>(config.embed_dim), ffn = static_cast<double>(config.ffn_dim);
  const auto layers = static_cast<double>(config.layers);
  const int64_t in = config.input_dim > 0 ? config.input_dim : config.embed_dim;
  const int64_t out = config.output_dim > 0 ? config.output_dim : config.embed_dim;
  const double elements = layers * (4.0 * d * d + 2.0 * d * ffn) + input_elements(config, in, vocabulary, counts) +
                          output_elements(config, out, vocabulary, counts);
  return 6.0 * elements + 6.0 * layers * d * static_cast<double>(time + 1);
}

double measure_matmul_rate(const ModelConfig& config, const Kernels& kernels, DType dtype, int64_t rows) {
  using Clock = std::chrono::steady_clock;
  constexpr double kSeconds = 0.15, kMostOnCpu = 1e9;
  constexpr int kBatches = 5, kMostCalls = 2000;
  const int64_t k = config.embed_dim, n = config.ffn_dim;
  const double per_row = 2.0 * static_cast<double>(k) * static_cast<double>(n);
  int64_t m = std::max<int64_t>(rows, 1);
  if (!on_gpu(kernels)) m = std::clamp<int64_t>(static_cast<int64_t>(kMostOnCpu / per_row), 1, m);
  const OwnedTensor a = random_matrix(m, k, kernels, dtype, 1), b = random_matrix(n, k, kernels, dtype, 2);
  const OwnedTensor c({m, n}, dtype, *kernels.memory);
  const MatmulArgs args{.dtype = dtype,
                        .dtype_c = dtype,
                        .transpose_b = true,
                        .m = m,
                        .n = n,
                        .k = k,
                        .a = a.view().data,
                        .lda = k,
                        .b = b.view().data,
                        .ldb = k,
                        .c = c.view().data,
                        .ldc = n};
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
  return static_cast<double>(calls) * per_row * static_cast<double>(m) /
         *std::min_element(seconds.begin(), seconds.end());
}

Throughput::Throughput(const RunConfig& config, int64_t vocabulary, const std::function<std::vector<int64_t>()>& counts,
                       const Kernels& kernels, DType dtype, Communicator& comm)
    : ranks_(comm.size()) {
  const MeasureMatmul measure = config.train.measure_matmul;
  const int64_t rows = std::max(config.data.max_tokens, config.data.tokens_per_sample);
  if (measure == MeasureMatmul::always || (measure == MeasureMatmul::automatic && on_gpu(kernels))) {
    comm.barrier();
    matmul_rate_ = comm.all_reduce_sum_value(measure_matmul_rate(config.model, kernels, dtype, rows));
    product_ = fmt::format("products with a [{}, {}] matrix in {}", config.model.ffn_dim, config.model.embed_dim,
                           precision_text(config.train.precision, dtype, kernels));
  }
  if (comm.is_root())
    flops_per_token_ = model_flops_per_token(config.model, vocabulary, config.data.tokens_per_sample, counts());
}

double Throughput::utilisation(int64_t tokens, double seconds) const {
  if (matmul_rate_ <= 0.0 || seconds <= 0.0) return 0.0;
  return flops_per_token_ * static_cast<double>(tokens) / seconds / matmul_rate_;
}

std::string Throughput::text() const {
  std::string text = fmt::format("work: {} per token, forward and backward", format_flops(flops_per_token_));
  if (matmul_rate_ > 0.0)
    text += fmt::format("; measured {}/s{} for {}, to which MFU refers", format_flops(matmul_rate_),
                        ranks_ > 1 ? fmt::format(" on {} ranks together", ranks_) : "", product_);
  return text;
}

std::string memory_text(const ParameterStore& store, const Optimizer& optimizer, const Arena& activations,
                        const Kernels& kernels) {
  std::string text = fmt::format("memory: parameters {}, gradients {}, optimizer {}, activations {}",
                                 format_bytes(store.values().bytes()), format_bytes(store.grads().bytes()),
                                 format_bytes(optimizer.bytes()), format_bytes(activations.capacity()));
  if (std::string_view(kernels.memory->name) != "cuda") return text;
  const CudaMemoryUse use = cuda_memory_use();
  return text + fmt::format(", scratch {}; {} of the GPU's {} are free", format_bytes(use.scratch),
                            format_bytes(use.free), format_bytes(use.total));
}

}  // namespace qn
