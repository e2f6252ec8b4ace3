// One E-step of k-means in one kernel: nearest centroid, codes and exact partial sums of a batch of sub-vectors, for
// all weights of a stage in one launch.
//
// What limits it, by counting instructions (not measured): of those that find the best group of centroids for
// sub-vectors of 8 elements, three quarters are multiply-adds (the others: one minimum per score, loads of centroids,
// comparisons of groups); the second look into that group, the sums and the sorting take a fifth more. So about 60 % of
// a GPU's float32 multiply-add rate can be reached.
#include "ops/cuda/reduce.cuh"
#include "quant/cuda/kmeans_nearest.cuh"
#include "quant/cuda/kmeans_sums.cuh"

namespace qn::cuda {
namespace {

__device__ const KMeansLayer& layer_of_batch(const KMeansLaunch& launch, int64_t batch) {
  int low = 0, high = launch.count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (launch.layers[middle].first_batch <= batch)
      low = middle;
    else
      high = middle;
  }
  return launch.layers[low];
}

/// A block's batch.
struct Batch {
  const KMeansLayer& layer;
  int64_t first;
  int count;

  __device__ explicit Batch(const KMeansLaunch& launch)
      : layer(layer_of_batch(launch, blockIdx.x)),
        first(layer.begin + (blockIdx.x - layer.first_batch) * kKMeansBatch),
        count(static_cast<int>(layer.end - first < kKMeansBatch ? layer.end - first : kKMeansBatch)) {}
};

/// D: most elements of a sub-vector, 0 for any. Blocks of threads to a multiprocessor: what registers allow.
template <int D>
__global__ void __launch_bounds__(kBlock, D == 16 ? 2 : 3) assign_kernel(KMeansLaunch launch) {
  __shared__ CentroidTile<D> tile;
  __shared__ BatchCodes codes;
  __shared__ CodeBins bins;
  const Batch batch(launch);
  const KMeansLayer& layer = batch.layer;
  if (threadIdx.x == 0) codes.doubtful = 0;
  __syncthreads();
  if constexpr (D > 0)
    find_nearest<D>(layer, batch.first, batch.count, tile, codes);
  else
    find_nearest_of_any_size(layer, batch.first, batch.count, codes);
  __syncthreads();
  decide_doubtful(layer, batch.first, codes);
  __syncthreads();
  uint16_t* to = layer.codes + (batch.first - layer.begin);
  for (int i = static_cast<int>(threadIdx.x); i < batch.count; i += kBlock) to[i] = codes.code[i];
  if constexpr (D > 0) {
    sort_by_code(layer.n_centroids, batch.count, codes, bins);
    add_runs<D>(layer, batch.first, batch.count, codes);
  } else {
    add_any_size(layer, batch.first, batch.count, codes);
  }
}

// One block per layer.
__global__ void prepare_kernel(const KMeansLayer* layers) {
  const KMeansLayer& layer = layers[blockIdx.x];
  const int d = layer.dim, step = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  for (int k = thread; k < layer.n_centroids; k += step) {
    double norm = 0.0;
    for (int t = 0; t < d; ++t) {
      const auto c = static_cast<double>(layer.centroids[k * d + t]);
      norm += c * c;
    }
    layer.half_norm[k] = static_cast<float>(0.5 * norm);
  }
  for (int t = 0; t < d; ++t) {
    float largest = 0.0f;
    for (int k = thread; k < layer.n_centroids; k += step) largest = fmaxf(largest, fabsf(layer.centroids[k * d + t]));
    largest = block_max(largest);
    if (thread == 0) layer.largest[t] = largest;
  }
}

__global__ void squared_errors_kernel(KMeansLaunch launch, double* sums) {
  const Batch batch(launch);
  const KMeansLayer& layer = batch.layer;
  const int d = layer.dim;
  double error = 0.0, original = 0.0;
  for (int i = static_cast<int>(threadIdx.x); i < batch.count; i += static_cast<int>(blockDim.x)) {
    const int64_t m = batch.first + i, k = layer.codes[m - layer.begin];
    for (int t = 0; t < d; ++t) {
      const auto x = static_cast<double>(layer.data[m * d + t]);
      const double diff = static_cast<double>(layer.centroids[k * d + t]) - x;
      error += diff * diff;
      original += x * x;
    }
  }
  error = block_sum(error);
  original = block_sum(original);
  if (threadIdx.x != 0) return;
  sums[2 * blockIdx.x] = error;
  sums[2 * blockIdx.x + 1] = original;
}

// Bits of magnitudes are in the order of the magnitudes; the largest does not depend on the order of the atomics.
__global__ void largest_kernel(const float* values, int64_t count, uint32_t* largest) {
  uint32_t bits = 0;
  for (int64_t i = thread_index(); i < count; i += thread_count()) {
    const uint32_t magnitude = bits_of(values[i]) & 0x7fffffffU;
    bits = bits > magnitude ? bits : magnitude;
  }
  bits = block_max(bits);
  if (threadIdx.x == 0) atomicMax(largest, bits);
}

__global__ void gather_kernel(float* to, const float* data, const int64_t* numbers, int64_t count, int64_t dim) {
  for (int64_t i = thread_index(); i < count * dim; i += thread_count()) to[i] = data[numbers[i / dim] * dim + i % dim];
}

template <int D>
void assign_kind(const KMeansLaunch& launch) {
  const dim3 grid(static_cast<unsigned>(launch.batches));
  qn::cuda::launch(assign_kernel<D>, grid, kBlock, launch);
}

}  // namespace

void kmeans_prepare(const KMeansLayer* layers, int count) {
  launch(prepare_kernel, dim3(static_cast<unsigned>(count)), kThreads, layers);
}

void kmeans_assign(const KMeansLaunch& launch, int kind) {
  switch (kind) {
    case 4:
      return assign_kind<4>(launch);
    case 8:
      return assign_kind<8>(launch);
    case 16:
      return assign_kind<16>(launch);
    default:
      return assign_kind<0>(launch);
  }
}

void kmeans_squared_errors(const KMeansLaunch& launch, double* sums) {
  qn::cuda::launch(squared_errors_kernel, dim3(static_cast<unsigned>(launch.batches)), kThreads, launch, sums);
}

void kmeans_largest(const float* values, int64_t count, uint32_t* largest) {
  launch(largest_kernel, dim3(std::min(ceil_div(count, kThreads), 1024U)), kThreads, values, count, largest);
}

void kmeans_gather(float* to, const float* data, const int64_t* numbers, int64_t count, int64_t dim) {
  launch(gather_kernel, flat_grid(count * dim), kThreads, to, data, numbers, count, dim);
}

}  // namespace qn::cuda
