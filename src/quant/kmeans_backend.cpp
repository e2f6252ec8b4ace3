#include "quant/kmeans_backend.h"

#include <algorithm>

#include "ops/host_access.h"
#include "quant/cuda/kmeans_backend.h"
#include "quant/kmeans_bounds.h"

namespace qn {
namespace {

SquaredErrors squared_errors_of(const SubVectors& v, int64_t begin, int64_t end, const uint16_t* codes,
                                const float* centroids) {
  SquaredErrors sums;
  for (int64_t m = begin; m < end; ++m) {
    const float *x = v.data + m * v.dim, *c = centroids + codes[m - begin] * v.dim;
    for (int64_t t = 0; t < v.dim; ++t) {
      const auto original = static_cast<double>(x[t]);
      const double diff = static_cast<double>(c[t]) - original;
      sums.error += diff * diff;
      sums.original += original * original;
    }
  }
  return sums;
}

class CpuKMeans : public KMeansBackend {
 public:
  /// `copies` hold what the shares point to, where nobody else does.
  CpuKMeans(std::vector<WeightShare> shares, std::vector<OwnedTensor> copies)
      : shares_(std::move(shares)), copies_(std::move(copies)), bounds_(shares_.size()) {
    for (const WeightShare& s : shares_) codes_.emplace_back(static_cast<size_t>(s.count()));
  }

  std::vector<double> largest_magnitudes() override {
    std::vector<double> largest;
    for (const WeightShare& s : shares_)
      largest.push_back(largest_magnitude(
          {s.vectors.data + s.begin * s.vectors.dim, static_cast<size_t>(s.count() * s.vectors.dim)}));
    return largest;
  }

  std::vector<float> gather(size_t weight, std::span<const int64_t> numbers) override {
    const SubVectors& v = shares_[weight].vectors;
    std::vector<float> values;
    values.reserve(numbers.size() * static_cast<size_t>(v.dim));
    for (const int64_t m : numbers) values.insert(values.end(), v.data + m * v.dim, v.data + (m + 1) * v.dim);
    return values;
  }

  void set_bounds(size_t weight, double max_abs, double max_importance) override {
    shares_[weight].vectors.max_abs = max_abs;
    shares_[weight].vectors.max_importance = max_importance;
  }

  void assign(std::span<const size_t> weights, std::span<const std::vector<float>> centroids,
              std::vector<double>& sums) override {
    sums.clear();
    for (const size_t i : weights) {
      const WeightShare& s = shares_[i];
      const size_t offset = sums.size();
      sums.resize(offset + static_cast<size_t>(s.layout().size()));
      assign_parallel(s.vectors, s.begin, s.end, CentroidTable(centroids[i], s.vectors.dim), codes_[i].data(),
                      sums.data() + offset, &bounds_[i]);
    }
  }

  std::vector<uint16_t> codes(size_t weight) override { return codes_[weight]; }

  std::vector<SquaredErrors> squared_errors(std::span<const std::vector<float>> centroids) override {
    std::vector<SquaredErrors> all;
    for (size_t i = 0; i < shares_.size(); ++i) {
      const WeightShare& s = shares_[i];
      std::vector<SquaredErrors> chunks(static_cast<size_t>((s.count() + kSubVectorChunk - 1) / kSubVectorChunk));
#pragma omp parallel for schedule(static) if (chunks.size() > 8)
      for (size_t chunk = 0; chunk < chunks.size(); ++chunk) {
        const int64_t first = static_cast<int64_t>(chunk) * kSubVectorChunk;
        chunks[chunk] =
            squared_errors_of(s.vectors, s.begin + first, std::min(s.end, s.begin + first + kSubVectorChunk),
                              codes_[i].data() + first, centroids[i].data());
      }
      SquaredErrors& total = all.emplace_back();
      for (const SquaredErrors& c : chunks) total = {total.error + c.error, total.original + c.original};
    }
    return all;
  }

 private:
  std::vector<WeightShare> shares_;
  std::vector<OwnedTensor> copies_;
  std::vector<std::vector<uint16_t>> codes_;
  std::vector<AssignBounds> bounds_;
};

}  // namespace

std::unique_ptr<KMeansBackend> make_kmeans_backend(const Kernels& kernels, std::vector<WeightShare> shares) {
  std::vector<OwnedTensor> copies;
  const Device device(kernels);
  const bool columns = std::any_of(shares.begin(), shares.end(),
                                   [](const WeightShare& s) { return s.vectors.column_importance != nullptr; });
  if (device.is_cuda() && !columns) return make_cuda_kmeans_backend(kernels, std::move(shares));
  if (!device.on_host()) {
    for (WeightShare& s : shares) {
      copies.push_back(download(kernels, view_of(s.vectors.data, {s.vectors.count, s.vectors.dim})));
      s.vectors.data = copies.back().view().as<float>();
    }
  }
  return std::make_unique<CpuKMeans>(std::move(shares), std::move(copies));
}

}  // namespace qn
