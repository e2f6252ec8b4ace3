#include "quant/cuda/kmeans_backend.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "core/error.h"
#include "ops/cuda/context.h"
#include "ops/host_access.h"
#include "quant/cuda/kmeans_kernels.h"

namespace qn {
namespace {

using cuda::KMeansLaunch;
using cuda::KMeansLayer;

template <typename T>
T* scratch_array(size_t count) {
  return static_cast<T*>(cuda::Context::current().scratch().allocate(count * sizeof(T)));
}

/// Layers of an E-step that one launch takes, in the order in which their descriptions lie in memory.
struct Group {
  int kind;
  size_t first;
  KMeansLaunch launch;
};

/// All weights advance together: one upload of all centroids, one launch per kind of layer, one download of all sums.
/// Codes stay on the device until somebody asks for them.
class CudaKMeans : public KMeansBackend {
 public:
  CudaKMeans(const Kernels& kernels, std::vector<WeightShare> shares)
      : kernels_(kernels), shares_(std::move(shares)), row_importance_(shares_.size()) {
    size_t codes = 0;
    for (const WeightShare& s : shares_) {
      QN_CHECK(
          s.vectors.count <= std::numeric_limits<int32_t>::max(),
          "k-means on a GPU takes weights of at most 2^31 sub-vectors, one has {}: use larger blocks, or --device cpu",
          s.vectors.count);
      codes += padded(s.count());
    }
    codes_ = Buffer(codes * sizeof(uint16_t), *kernels_.memory);
    auto* to = reinterpret_cast<uint16_t*>(codes_.data());
    for (size_t i = 0; i < shares_.size(); ++i) {
      layers_.push_back(layer_of(i, to));
      to += padded(shares_[i].count());
    }
  }

  std::vector<double> largest_magnitudes() override {
    const ScratchScope scope(cuda::Context::current().scratch());
    auto* bits = scratch_array<uint32_t>(shares_.size());
    std::vector<uint32_t> found(shares_.size(), 0);
    kernels_.upload(bits, found.data(), found.size() * sizeof(uint32_t));
    for (size_t i = 0; i < shares_.size(); ++i) {
      const WeightShare& s = shares_[i];
      cuda::kmeans_largest(s.vectors.data + s.begin * s.vectors.dim, s.count() * s.vectors.dim, bits + i);
    }
    kernels_.download(found.data(), bits, found.size() * sizeof(uint32_t));
    std::vector<double> largest;
    for (const uint32_t b : found) {
      const auto value = static_cast<double>(std::bit_cast<float>(b));
      largest.push_back(value <= std::numeric_limits<float>::max() ? value : std::numeric_limits<double>::infinity());
    }
    return largest;
  }

  std::vector<float> gather(size_t weight, std::span<const int64_t> numbers) override {
    const SubVectors& v = shares_[weight].vectors;
    const ScratchScope scope(cuda::Context::current().scratch());
    std::vector<float> values(numbers.size() * static_cast<size_t>(v.dim));
    auto* from = scratch_array<int64_t>(numbers.size());
    auto* to = scratch_array<float>(values.size());
    kernels_.upload(from, numbers.data(), numbers.size_bytes());
    cuda::kmeans_gather(to, v.data, from, std::ssize(numbers), v.dim);
    kernels_.download(values.data(), to, values.size() * sizeof(float));
    return values;
  }

  void set_bounds(size_t weight, double max_abs, double max_importance) override {
    SubVectors& v = shares_[weight].vectors;
    v.max_abs = max_abs;
    v.max_importance = max_importance;
    layers_[weight].grids = make_grids(v);
  }

  void assign(std::span<const size_t> weights, std::span<const std::vector<float>> centroids,
              std::vector<double>& sums) override {
    const ScratchScope scope(cuda::Context::current().scratch());
    std::vector<KMeansLayer> layers;
    for (const size_t i : weights) layers.push_back(layers_[i]);
    upload_centroids(weights, centroids, layers);
    int64_t size = 0;
    for (const size_t i : weights) size += shares_[i].layout().size();
    sums.resize(static_cast<size_t>(size));
    if (weights.empty()) return;
    const Tensor device_sums{scratch_array<double>(sums.size()), {size}, DType::f64};
    kernels_.fill(device_sums, 0.0);
    place_sums(weights, device_sums.as<double>(), layers);
    for (const Group& group : upload_layers(layers)) {
      cuda::kmeans_prepare(group.launch.layers, group.launch.count);
      cuda::kmeans_assign(group.launch, group.kind);
    }
    kernels_.download(sums.data(), device_sums.data, device_sums.bytes());
  }

  std::vector<uint16_t> codes(size_t weight) override {
    std::vector<uint16_t> codes(static_cast<size_t>(shares_[weight].count()));
    kernels_.download(codes.data(), layers_[weight].codes, codes.size() * sizeof(uint16_t));
    return codes;
  }

  std::vector<SquaredErrors> squared_errors(std::span<const std::vector<float>> centroids) override {
    const ScratchScope scope(cuda::Context::current().scratch());
    std::vector<size_t> all;
    std::vector<KMeansLayer> layers = layers_;
    int64_t batches = 0;
    for (size_t i = 0; i < layers.size(); ++i) {
      all.push_back(i);
      batches = number_batches(layers[i], batches);
    }
    upload_centroids(all, centroids, layers);
    auto* on_device = scratch_array<KMeansLayer>(layers.size());
    auto* device_sums = scratch_array<double>(static_cast<size_t>(2 * batches));
    std::vector<double> sums(static_cast<size_t>(2 * batches));
    kernels_.upload(on_device, layers.data(), layers.size() * sizeof(KMeansLayer));
    cuda::kmeans_squared_errors({on_device, static_cast<int>(layers.size()), batches}, device_sums);
    kernels_.download(sums.data(), device_sums, sums.size() * sizeof(double));
    std::vector<SquaredErrors> errors(layers.size());
    for (size_t i = 0; i < layers.size(); ++i) {
      const int64_t end = i + 1 < layers.size() ? layers[i + 1].first_batch : batches;
      for (auto b = static_cast<size_t>(2 * layers[i].first_batch); b < static_cast<size_t>(2 * end); b += 2)
        errors[i] = {errors[i].error + sums[b], errors[i].original + sums[b + 1]};
    }
    return errors;
  }

 private:
  /// Codes of a share in a common buffer: every share starts on a cache line.
  static size_t padded(int64_t count) { return static_cast<size_t>((count + 63) / 64 * 64); }

  /// What stays the same in every E-step.
  KMeansLayer layer_of(size_t i, uint16_t* codes) {
    const WeightShare& s = shares_[i];
    const SubVectors& v = s.vectors;
    KMeansLayer layer{};
    layer.data = v.data;
    layer.codes = codes;
    layer.n_centroids = static_cast<int>(s.n_centroids);
    layer.dim = static_cast<int>(v.dim);
    layer.begin = s.begin;
    layer.end = s.end;
    layer.blocks_per_row = v.blocks_per_row;
    layer.aligned = v.dim % 4 == 0 && reinterpret_cast<uintptr_t>(v.data) % 16 == 0;
    const auto per_row = static_cast<size_t>(v.blocks_per_row);
    if (v.row_importance != nullptr)
      layer.row_importance =
          row_importance_[i].of(kernels_, std::span(v.row_importance, static_cast<size_t>(v.count) / per_row));
    return layer;
  }

  static int64_t number_batches(KMeansLayer& layer, int64_t first) {
    layer.first_batch = first;
    return first + (layer.end - layer.begin + cuda::kKMeansBatch - 1) / cuda::kKMeansBatch;
  }

  void upload_centroids(std::span<const size_t> weights, std::span<const std::vector<float>> centroids,
                        std::vector<KMeansLayer>& layers) {
    std::vector<float> all;
    for (const size_t i : weights) all.insert(all.end(), centroids[i].begin(), centroids[i].end());
    auto* values = scratch_array<float>(all.size());
    kernels_.upload(values, all.data(), all.size() * sizeof(float));
    for (size_t i = 0; i < weights.size(); ++i) {
      KMeansLayer& layer = layers[i];
      layer.centroids = values;
      layer.half_norm = scratch_array<float>(static_cast<size_t>(layer.n_centroids));
      layer.largest = scratch_array<float>(static_cast<size_t>(layer.dim));
      values += int64_t{layer.n_centroids} * layer.dim;
    }
  }

  /// The sums of the layers lie one after another.
  void place_sums(std::span<const size_t> weights, double* at, std::vector<KMeansLayer>& layers) {
    for (size_t i = 0; i < weights.size(); ++i) {
      const StatsLayout layout = shares_[weights[i]].layout();
      layers[i].counts = at + layout.count(0);
      layers[i].errors = at + layout.error(0);
      layers[i].residuals = at + layout.residual(0);
      layers[i].weights = layout.weights > 0 ? at + layout.weight(0) : nullptr;
      at += layout.size();
    }
  }

  std::vector<Group> upload_layers(std::span<const KMeansLayer> layers) {
    std::vector<Group> groups;
    std::vector<KMeansLayer> sorted;
    for (const int kind : {4, 8, 16, 0}) {
      Group group{kind, sorted.size(), {}};
      for (const KMeansLayer& layer : layers) {
        if (cuda::kmeans_kind(layer.dim) != kind) continue;
        group.launch.batches = number_batches(sorted.emplace_back(layer), group.launch.batches);
        ++group.launch.count;
      }
      if (group.launch.count > 0) groups.push_back(group);
    }
    auto* on_device = scratch_array<KMeansLayer>(sorted.size());
    kernels_.upload(on_device, sorted.data(), sorted.size() * sizeof(KMeansLayer));
    for (Group& group : groups) group.launch.layers = on_device + group.first;
    return groups;
  }

  const Kernels& kernels_;
  std::vector<WeightShare> shares_;
  std::vector<KMeansLayer> layers_;
  std::vector<DeviceCopy<float>> row_importance_;
  Buffer codes_;
};

}  // namespace

std::unique_ptr<KMeansBackend> make_cuda_kmeans_backend(const Kernels& kernels, std::vector<WeightShare> shares) {
  return std::make_unique<CudaKMeans>(kernels, std::move(shares));
}

}  // namespace qn
