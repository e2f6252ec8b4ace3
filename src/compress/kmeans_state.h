// A k-means that was stopped between two iterations, in checkpoints.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "nn/state_dict.h"
#include "quant/kmeans.h"
#include "quant/quantizer.h"

namespace qn {

/// A weight that takes part, and its k-means.
struct KMeansOf {
  std::string weight;
  KMeansShape shape;
};

/// Entries "PREFIX/kmeans_iteration" and, where there is one, "PREFIX/kmeans/..." (docs/formats.md).
void save_kmeans(StateDict& state, const std::string& prefix, std::span<const KMeansOf> weights,
                 const std::optional<KMeansState>& kmeans);
/// Nothing when none was stopped. Throws qn::Error when it has not all of these weights.
std::optional<KMeansState> load_kmeans(const StateDict& state, const std::string& prefix,
                                       std::span<const KMeansOf> weights);

/// Codes as small as whole bytes can be, u8 [n] or i32 [n].
OwnedTensor codes_to_tensor(std::span<const uint16_t> codes, bool fit_a_byte);
std::vector<uint16_t> codes_from_tensor(const Tensor& tensor);

/// A copy of host values.
template <typename T>
OwnedTensor tensor_of(const std::vector<T>& values, Shape shape) {
  return copy_of(view_of(values.data(), shape));
}
template <typename T>
std::vector<T> values_of(const Tensor& tensor) {
  return {tensor.span<T>().begin(), tensor.span<T>().end()};
}

}  // namespace qn
