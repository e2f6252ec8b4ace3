#include "compress/kmeans_state.h"

namespace qn {

void save_kmeans(StateDict& state, const std::string& prefix, std::span<const KMeansOf> weights,
                 const std::optional<KMeansState>& kmeans) {
  state.ints[prefix + "/kmeans_iteration"] = kmeans ? kmeans->iteration : 0;
  if (!kmeans) return;
  const std::string base = prefix + "/kmeans/";
  state.tensors[base + "splits"] = tensor_of(kmeans->splits, {std::ssize(weights)});
  for (size_t i = 0; i < weights.size(); ++i) {
    const auto& [name, kmeans_shape] = weights[i];
    const Shape shape{kmeans_shape.n_centroids, kmeans_shape.block_size};
    state.tensors[base + "centroids/" + name] = tensor_of(kmeans->centroids[i], shape);
    state.tensors[base + "assigning_centroids/" + name] = tensor_of(kmeans->assigning_centroids[i], shape);
    const std::vector<double>& objective = kmeans->objective_history[i];
    state.tensors[base + "objective/" + name] = tensor_of(objective, {std::ssize(objective)});
  }
}

std::optional<KMeansState> load_kmeans(const StateDict& state, const std::string& prefix,
                                       std::span<const KMeansOf> weights) {
  const int64_t iteration = state.integer(prefix + "/kmeans_iteration");
  if (iteration == 0) return std::nullopt;
  const std::string base = prefix + "/kmeans/";
  KMeansState kmeans{.iteration = iteration,
                     .centroids = {},
                     .assigning_centroids = {},
                     .objective_history = {},
                     .splits = values_of<int64_t>(state.tensor(base + "splits"))};
  for (const KMeansOf& of : weights) {
    kmeans.centroids.push_back(values_of<float>(state.tensor(base + "centroids/" + of.weight)));
    kmeans.assigning_centroids.push_back(values_of<float>(state.tensor(base + "assigning_centroids/" + of.weight)));
    kmeans.objective_history.push_back(values_of<double>(state.tensor(base + "objective/" + of.weight)));
  }
  return kmeans;
}

OwnedTensor codes_to_tensor(std::span<const uint16_t> codes, bool fit_a_byte) {
  const Shape shape{std::ssize(codes)};
  return fit_a_byte ? tensor_of(std::vector<uint8_t>(codes.begin(), codes.end()), shape)
                    : tensor_of(std::vector<int32_t>(codes.begin(), codes.end()), shape);
}

std::vector<uint16_t> codes_from_tensor(const Tensor& tensor) {
  if (tensor.dtype == DType::u8) return {tensor.span<uint8_t>().begin(), tensor.span<uint8_t>().end()};
  return {tensor.span<int32_t>().begin(), tensor.span<int32_t>().end()};
}

}  // namespace qn
