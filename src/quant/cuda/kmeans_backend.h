// k-means on a GPU: the KMeansBackend of weights in the CUDA backend's memory.
#pragma once

#include <memory>
#include <vector>

#include "quant/kmeans_backend.h"

namespace qn {

/// `kernels` are the CUDA backend's. In a program built without it: throws qn::Error that says so.
std::unique_ptr<KMeansBackend> make_cuda_kmeans_backend(const Kernels& kernels, std::vector<WeightShare> shares);

}  // namespace qn
