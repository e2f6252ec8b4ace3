#include "compress/replacement_noise.h"

#include <algorithm>

#include "ops/host_access.h"

namespace qn {

ReplacementNoise::ReplacementNoise(Parameter* dense, const ReplacementOptions& options)
    : NoisyWeight(dense, options.rate), options_(options) {}

/// Memory that is there stays: recorded passes know where it is.
const Tensor& ReplacementNoise::place(OwnedTensor& tensor, Shape shape, const Kernels& kernels) const {
  if (!tensor.defined() || tensor.view().shape != shape)
    tensor = OwnedTensor(shape, dense()->value.dtype, *kernels.memory);
  return tensor.view();
}

void ReplacementNoise::set_values(const Kernels& kernels, int64_t rows, const std::vector<float>& values) {
  place(values_, {rows, options_.shape.block_size}, kernels);
  write_on_host(kernels, values_.view(), [&](const Tensor& host) {
    if (host.dtype == DType::f64)
      std::copy(values.begin(), values.end(), host.as<double>());
    else
      std::copy(values.begin(), values.end(), host.as<float>());
  });
}

void ReplacementNoise::set_codes(const Kernels& kernels) {
  // The inverse of a transposition is that of its result.
  const std::vector<uint16_t> codes =
      codes_from_memory_order(codebook_.codes, codebook_.cols / codebook_.block_size, codebook_.rows);
  const size_t bytes = codes.size() * sizeof(uint16_t);
  if (codes_.size() != bytes) codes_ = Buffer(bytes, *kernels.memory);
  kernels.upload(codes_.data(), codes.data(), bytes);
}

void ReplacementNoise::set_codebook(const Kernels& kernels, PqTable codebook) {
  QN_ASSERT(codebook.block_size == options_.shape.block_size);
  codebook_ = std::move(codebook);
  set_codes(kernels);
  if (options_.by == Replacement::centroid) set_values(kernels, codebook_.n_centroids, codebook_.centroids);
  if (options_.by == Replacement::zero)
    set_values(kernels, 1, std::vector<float>(static_cast<size_t>(codebook_.block_size), 0.0f));
}

/// Sums over rows, then over the blocks of a row: the order of sums does not depend on threads.
void ReplacementNoise::find_mean(const Kernels& kernels) {
  const Tensor& master = dense()->value;
  const int64_t rows = master.shape[0], cols = master.elements() / rows, d = options_.shape.block_size;
  const Tensor sums = place(sums_, {cols}, kernels), values = place(values_, {1, d}, kernels).reshaped({d});
  kernels.bias_grad(sums, master.reshaped({rows, cols}), 0, 0);
  kernels.bias_grad(values, sums.reshaped({cols / d, d}), 0, 0);
  kernels.axpy(values, values, static_cast<double>(d) / static_cast<double>(rows * cols), 0);
}

void ReplacementNoise::begin_update(const Kernels& kernels, int64_t) {
  if (options_.by == Replacement::mean && rate() > 0.0) find_mean(kernels);
}

Var ReplacementNoise::value(Tape& tape) {
  const Var w = matrix(tape);
  if (!values_.defined() || (needs_codebook() && codebook() == nullptr)) return w;
  const double p = rate();
  return replace_blocks(tape, w,
                        {.values = values_.view(),
                         .codes = needs_codebook() ? reinterpret_cast<const uint16_t*>(codes_.data()) : nullptr,
                         .clusters = options_.clusters ? codebook_.n_centroids : 0,
                         .p = p,
                         .scale = options_.by == Replacement::zero ? 1.0 / (1.0 - p) : 1.0,
                         .id = id()});
}

}  // namespace qn
