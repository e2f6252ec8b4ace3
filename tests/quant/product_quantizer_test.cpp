#include "quant/product_quantizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <functional>
#include <set>

#include "core/error.h"
#include "quant_data.h"
#include "support/golden.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

PqTable table_of(const GoldenLayer& layer) {
  return {layer.rows,        layer.cols,      layer.block_size,
          layer.n_centroids, layer.centroids, {layer.codes.begin(), layer.codes.end()},
          layer.counts};
}

PqTable random_table(int64_t rows, int64_t cols, int64_t d, int64_t k) {
  PqTable table{rows, cols, d, k, random_weight(k * d, "centroids"), {}, {}};
  const RandomStream stream({1, Purpose::test, 0, 0, 0});
  for (int64_t n = 0; n < table.blocks(); ++n)
    table.codes.push_back(static_cast<uint16_t>(stream.u32(static_cast<uint64_t>(n)) % static_cast<uint32_t>(k)));
  table.counts = count_codes(table.codes, k);
  return table;
}

/// y = x W^T + bias: x [n, cols], W [rows, cols].
std::vector<float> naive_linear(const std::vector<float>& x, const std::vector<float>& w,
                                const std::vector<float>& bias, int64_t rows, int64_t cols) {
  std::vector<float> y;
  for (int64_t i = 0; i < std::ssize(x) / cols; ++i)
    for (int64_t o = 0; o < rows; ++o) {
      double sum = bias.empty() ? 0.0 : bias[static_cast<size_t>(o)];
      for (int64_t c = 0; c < cols; ++c)
        sum += static_cast<double>(x[static_cast<size_t>(i * cols + c)]) * w[static_cast<size_t>(o * cols + c)];
      y.push_back(static_cast<float>(sum));
    }
  return y;
}

/// The rows of a table that the ids name.
std::vector<float> naive_lookup(const std::vector<int64_t>& ids, const std::vector<float>& w, int64_t cols) {
  std::vector<float> y;
  for (const int64_t id : ids) y.insert(y.end(), w.begin() + id * cols, w.begin() + (id + 1) * cols);
  return y;
}

class ProductQuantizerGolden : public testing::Test {
 protected:
  void for_each_layer(const std::function<void(const Hdf5File&, const GoldenLayer&)>& check) {
    for (const GoldenPlace& place : kGoldenLayers) {
      QN_GOLDEN(path, place.file);
      const Hdf5File file(path, Hdf5File::Mode::read);
      const std::vector<GoldenLayer> layers = read_golden_layers(file, place.group);
      ASSERT_FALSE(layers.empty());
      for (const GoldenLayer& layer : layers) {
        SCOPED_TRACE(layer.name);
        check(file, layer);
      }
    }
  }
};

TEST_F(ProductQuantizerGolden, DecodesExactly) {
  for_each_layer([](const Hdf5File& file, const GoldenLayer& layer) {
    const PqTable table = table_of(layer);
    EXPECT_NO_THROW(check_table(table, layer.name));
    std::vector<float> weight(layer.weight.size());
    std::vector<double> wide(layer.weight.size());
    decode(table, weight.data());
    decode(table, wide.data());
    const std::vector<float> expected = file.read<float>(layer.name + "/decoded");
    EXPECT_EQ(weight, expected);
    EXPECT_TRUE(std::equal(wide.begin(), wide.end(), expected.begin()));
    EXPECT_TRUE(close(reconstruction_error(table, layer.weight), layer.objective.back(), kLayerTolerance));
  });
}

TEST_F(ProductQuantizerGolden, CentroidGradients) {
  for_each_layer([](const Hdf5File& file, const GoldenLayer& layer) {
    const PqTable table = table_of(layer);
    const CentroidGradient mode = layer.mean_gradient ? CentroidGradient::mean : CentroidGradient::sum;
    const std::vector<float> dense = file.read<float>(layer.name + "/module/grad_dense_weight");
    const std::vector<float> expected = file.read<float>(layer.name + "/module/grad_centroids");
    std::vector<float> gradient(expected.size(), 1e30f);
    centroid_gradient(table, dense.data(), gradient.data(), false, mode);
    EXPECT_TRUE(close(gradient, expected, kLayerTolerance));
    centroid_gradient(table, dense.data(), gradient.data(), true, mode);
    std::vector<float> twice = expected;
    for (float& g : twice) g *= 2;
    EXPECT_TRUE(close(gradient, twice, kLayerTolerance));
  });
}

TEST_F(ProductQuantizerGolden, ForwardOfLinearAndEmbedding) {
  std::set<std::string> checked;
  for_each_layer([&](const Hdf5File& file, const GoldenLayer& layer) {
    const std::string module = layer.name + "/module";
    const std::string kind = file.string_attribute(layer.name, "kind");
    if (kind == "conv" || !file.exists(module + "/output")) return;
    std::vector<float> weight(layer.weight.size());
    decode(table_of(layer), weight.data());
    const std::vector<float> bias =
        file.exists(module + "/bias") ? file.read<float>(module + "/bias") : std::vector<float>{};
    const std::vector<float> output =
        kind == "linear" ? naive_linear(file.read<float>(module + "/input"), weight, bias, layer.rows, layer.cols)
                         : naive_lookup(file.read<int64_t>(module + "/input"), weight, layer.cols);
    EXPECT_TRUE(close(output, file.read<float>(module + "/output"), kLayerTolerance));
    checked.insert(kind);
  });
  EXPECT_EQ(checked, (std::set<std::string>{"embedding", "linear"}));
}

TEST_F(ProductQuantizerGolden, EncodesToTheSameCodes) {
  for_each_layer([](const Hdf5File&, const GoldenLayer& layer) {
    // Decoded weights are centroids themselves, so their codes are certain.
    const PqTable table = table_of(layer);
    std::vector<float> weight(layer.weight.size());
    decode(table, weight.data());
    const PqTable again = encode(weight.data(), layer.rows, layer.cols, layer.block_size, layer.centroids);
    EXPECT_EQ(again.codes, table.codes);
    EXPECT_EQ(again.counts, table.counts);
  });
}

struct Size {
  int64_t rows, cols, d, k;
};

class ProductQuantizerSizes : public testing::TestWithParam<Size> {};

TEST_P(ProductQuantizerSizes, DecodeAndGradientFollowTheDefinition) {
  const auto [rows, cols, d, k] = GetParam();
  const PqTable table = random_table(rows, cols, d, k);
  std::vector<float> weight(static_cast<size_t>(rows * cols)), expected(weight.size());
  const std::vector<float> grad = random_weight(rows * cols, "grad");
  std::vector<double> sums(static_cast<size_t>(k * d), 0.0);
  for (int64_t j = 0; j < cols / d; ++j)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t t = 0; t < d; ++t) {
        const int64_t code = table.codes[static_cast<size_t>(j * rows + r)];
        const auto at = static_cast<size_t>(r * cols + j * d + t);
        expected[at] = table.centroids[static_cast<size_t>(code * d + t)];
        sums[static_cast<size_t>(code * d + t)] += static_cast<double>(grad[at]);
      }
  decode(table, weight.data());
  EXPECT_EQ(weight, expected);

  std::vector<float> gradient(sums.size());
  centroid_gradient(table, grad.data(), gradient.data(), false, CentroidGradient::sum);
  EXPECT_TRUE(close(gradient, sums, kSummationTolerance));
  std::vector<double> wide(sums.size(), 1.0);
  const std::vector<double> wide_grad(grad.begin(), grad.end());
  centroid_gradient(table, wide_grad.data(), wide.data(), true, CentroidGradient::mean);
  for (size_t i = 0; i < wide.size(); ++i) {
    const auto count = static_cast<double>(std::max<int64_t>(1, table.counts[i / static_cast<size_t>(d)]));
    ASSERT_NEAR(wide[i], 1.0 + sums[i] / count, kDoubleTolerance) << i;
  }
}

TEST_P(ProductQuantizerSizes, GradientDoesNotDependOnThreads) {
  const auto [rows, cols, d, k] = GetParam();
  const PqTable table = random_table(rows, cols, d, k);
  const std::vector<float> grad = random_weight(rows * cols, "grad");
  const int threads = omp_get_max_threads();
  std::vector<std::vector<float>> results;
  for (const int n : {1, 2, 5}) {
    omp_set_num_threads(n);
    results.emplace_back(static_cast<size_t>(k * d));
    centroid_gradient(table, grad.data(), results.back().data(), false, CentroidGradient::sum);
  }
  omp_set_num_threads(threads);
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

INSTANTIATE_TEST_SUITE_P(Sizes, ProductQuantizerSizes,
                         testing::Values(Size{300, 256, 8, 256}, Size{257, 132, 4, 256}, Size{130, 160, 16, 40},
                                         Size{70, 81, 9, 12}, Size{1, 4096, 8, 16}, Size{4096, 1, 1, 7},
                                         Size{64, 64, 8, 65536}, Size{5, 8, 8, 1}));

TEST(ProductQuantizer, WorkedExampleOfTheBlockNumbering) {
  // R = 2, C = 4, d = 2: blocks 0..3 are W[0,0:2], W[1,0:2], W[0,2:4], W[1,2:4].
  PqTable table{2, 4, 2, 4, {0, 1, 10, 11, 20, 21, 30, 31}, {0, 1, 2, 3}, {1, 1, 1, 1}};
  std::vector<float> weight(8);
  decode(table, weight.data());
  EXPECT_EQ(weight, (std::vector<float>{0, 1, 20, 21, 10, 11, 30, 31}));
}

TEST(ProductQuantizer, CentroidsWithoutBlocksHaveZeroGradient) {
  const PqTable table{1, 4, 2, 3, {0, 0, 1, 1, 2, 2}, {0, 2}, {1, 0, 1}};
  const std::vector<float> grad = {1, 2, 3, 4};
  std::vector<float> gradient(6, 9.0f);
  centroid_gradient(table, grad.data(), gradient.data(), false, CentroidGradient::mean);
  EXPECT_EQ(gradient, (std::vector<float>{1, 2, 0, 0, 3, 4}));
}

TEST(ProductQuantizer, ChecksTablesFromFiles) {
  const PqTable good = random_table(6, 8, 4, 5);
  EXPECT_NO_THROW(check_table(good, "w"));
  const auto message = [](const PqTable& table) -> std::string {
    try {
      check_table(table, "layers.0.fc1");
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  PqTable bad = good;
  bad.codes[7] = 5;
  EXPECT_THAT(message(bad), testing::AllOf(testing::HasSubstr("layers.0.fc1"), testing::HasSubstr("block 7")));
  bad = good;
  bad.codes.pop_back();
  EXPECT_THAT(message(bad), testing::HasSubstr("12 blocks"));
  bad = good;
  bad.centroids.pop_back();
  EXPECT_THAT(message(bad), testing::HasSubstr("5 x 4"));
  bad = good;
  bad.block_size = 3;
  EXPECT_THAT(message(bad), testing::HasSubstr("blocks of 3"));
  bad = good;
  bad.counts[0] += 1;
  EXPECT_THAT(message(bad), testing::HasSubstr("counts"));
}

TEST(ProductQuantizer, WhatGradientsAreDividedBy) {
  const std::vector<int64_t> counts = {0, 1, 2, 9, 10, 100};
  EXPECT_TRUE(gradient_divisors(counts, CentroidGradient::sum).empty());
  EXPECT_EQ(gradient_divisors(counts, CentroidGradient::mean), counts);
  EXPECT_EQ(gradient_divisors(counts, CentroidGradient::root), (std::vector<int64_t>{0, 1, 1, 3, 3, 10}));
}

}  // namespace
}  // namespace qn::test
