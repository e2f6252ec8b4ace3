// Stands in for k-means on a GPU in programs built without CUDA.
#include "ops/cuda/backend.h"
#include "quant/cuda/kmeans_backend.h"

namespace qn {

std::unique_ptr<KMeansBackend> make_cuda_kmeans_backend(const Kernels&, std::vector<WeightShare>) {
  fail("{}", cuda_problem());
}

}  // namespace qn
