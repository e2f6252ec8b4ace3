// Weights for quantizer tests: random ones, and the layers of the reference files pq.h5 and conv_quant.h5.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/hdf5_file.h"
#include "core/random.h"
#include "quant/product_quantizer.h"

namespace qn::test {

/// Standard normal values, a function of the name.
inline std::vector<float> random_weight(int64_t count, const std::string& name, double scale = 1.0) {
  const RandomStream stream({7, Purpose::test, hash_name(name.c_str()), 0, 0});
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(scale * stream.normal(i));
  return values;
}

/// Frobenius norm of decoded - weight.
inline double reconstruction_error(const PqTable& table, std::span<const float> weight) {
  std::vector<float> decoded(weight.size());
  decode(table, decoded.data());
  double total = 0.0;
  for (size_t i = 0; i < weight.size(); ++i)
    total += std::pow(static_cast<double>(decoded[i]) - static_cast<double>(weight[i]), 2);
  return std::sqrt(total);
}

/// Where reference files have layers of product quantization: of all kinds, and of convolutions.
struct GoldenPlace {
  const char *file, *group;
};
inline constexpr GoldenPlace kGoldenLayers[] = {{"pq.h5", ""}, {"conv_quant.h5", "pq/"}};

/// One layer of them.
struct GoldenLayer {
  std::string name;
  std::vector<float> weight, initial_centroids, centroids;
  std::vector<int64_t> codes, counts;
  std::vector<double> objective;
  int64_t rows = 0, cols = 0, block_size = 0, n_centroids = 0;
  bool mean_gradient = false;
};

inline std::vector<GoldenLayer> read_golden_layers(const Hdf5File& file, const std::string& group = "") {
  std::vector<GoldenLayer> layers;
  for (const std::string& member : file.members('/' + group)) {
    const std::string name = group + member;
    if (!file.has_attribute(name, "n_centroids") || !file.exists(name + "/weight")) continue;
    const Shape shape = file.shape(name + "/weight");
    GoldenLayer layer{.name = name,
                      .weight = file.read<float>(name + "/weight"),
                      .initial_centroids = file.read<float>(name + "/init_centroids"),
                      .centroids = file.read<float>(name + "/centroids"),
                      .codes = file.read<int64_t>(name + "/assignments"),
                      .counts = {},
                      .objective = file.read<double>(name + "/objective"),
                      .rows = shape[0],
                      .cols = shape.elements() / shape[0],
                      .block_size = file.int_attribute(name, "block_size"),
                      .n_centroids = file.int_attribute(name, "n_centroids"),
                      .mean_gradient = file.string_attribute(name, "centroid_grad") == "mean"};
    for (const float count : file.read<float>(name + "/counts")) layer.counts.push_back(static_cast<int64_t>(count));
    layers.push_back(std::move(layer));
  }
  return layers;
}

}  // namespace qn::test
