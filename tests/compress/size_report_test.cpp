#include "compress/size_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <span>

#include "core/hdf5_file.h"
#include "quant/pq_quantizer.h"
#include "support/golden.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

constexpr double kSizeTolerance = 1e-12;  // the same arithmetic in double

/// Shape of a product-quantized weight.
struct PqShape {
  int64_t rows, cols, block_size, n_centroids;
};

/// fairseq's numbers (reference 3.5), in MB of 2^20 bytes: log2(K)/d bits per quantized weight (fractions allowed),
/// fp16 centroids, 4 bytes for everything else.
struct FairseqSizes {
  double original_mb = 0, index_mb = 0, centroids_mb = 0, other_mb = 0;
  double total_mb() const { return index_mb + centroids_mb + other_mb; }
  double ratio() const { return original_mb / total_mb(); }
};

/// `n_parameters` counts every distinct parameter once, before quantization.
FairseqSizes fairseq_sizes(int64_t n_parameters, std::span<const PqShape> quantized) {
  constexpr double kMb = 1024.0 * 1024.0;
  FairseqSizes sizes;
  sizes.original_mb = sizes.other_mb = 4.0 * static_cast<double>(n_parameters) / kMb;
  for (const PqShape& q : quantized) {
    const double values = static_cast<double>(q.rows * q.cols);
    sizes.index_mb +=
        std::log2(static_cast<double>(q.n_centroids)) / static_cast<double>(q.block_size) * values / 8.0 / kMb;
    sizes.centroids_mb += static_cast<double>(q.n_centroids * q.block_size) * 2.0 / kMb;
    sizes.other_mb -= 4.0 * values / kMb;
  }
  return sizes;
}

TEST(FairseqSizes, NumbersOfRecord) {
  QN_GOLDEN(path, "pq.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  const int64_t n_parameters = file.int_attribute("size_tracker", "n_parameters");
  std::vector<PqShape> quantized;
  const int64_t stages = file.int_attribute("size_tracker", "n_stages");
  ASSERT_GT(stages, 0);
  for (int64_t s = 0; s < stages; ++s) {
    const std::string stage = "size_tracker/stage" + std::to_string(s);
    SCOPED_TRACE(stage);
    const std::vector<int64_t> rows = file.read<int64_t>(stage + "/rows_cols_block_K");
    for (size_t i = 0; i < rows.size(); i += 4) quantized.push_back({rows[i], rows[i + 1], rows[i + 2], rows[i + 3]});
    ASSERT_EQ(std::ssize(quantized), file.int_attribute(stage, "n_quantized"));
    const FairseqSizes sizes = fairseq_sizes(n_parameters, quantized);
    EXPECT_TRUE(close(sizes.original_mb, file.float_attribute(stage, "size_original_MB"), kSizeTolerance));
    EXPECT_TRUE(close(sizes.index_mb, file.float_attribute(stage, "size_index_MB"), kSizeTolerance));
    EXPECT_TRUE(close(sizes.centroids_mb, file.float_attribute(stage, "size_centroids_MB"), kSizeTolerance));
    EXPECT_TRUE(close(sizes.other_mb, file.float_attribute(stage, "size_other_MB"), kSizeTolerance));
    EXPECT_TRUE(close(sizes.total_mb(), file.float_attribute(stage, "size_total_MB"), kSizeTolerance));
    EXPECT_TRUE(close(sizes.ratio(), file.float_attribute(stage, "ratio"), kSizeTolerance));
  }
}

TEST(SizeReport, CountsRealBytes) {
  SizeReport report;
  report.add_quantized("fc1", PqQuantizer(8, 256), 4096, 1024, ValueStorage::f16);
  report.add_quantized("odd", PqQuantizer(3, 5), 3, 9, ValueStorage::int8);  // 9 codes of 3 bits: 27 bits, 4 bytes
  report.add_dense("bias", 1024, ValueStorage::f32);
  report.add_dense("norm", 10, ValueStorage::f16);
  report.set_header_bytes(100);
  const std::vector<SizeEntry>& entries = report.entries();
  EXPECT_EQ(entries[0].code_bytes, 524288u);
  EXPECT_EQ(entries[0].side_bytes, 4096u);
  EXPECT_DOUBLE_EQ(entries[0].bits_per_value(), 1.0 + 8.0 * 4096 / (4096 * 1024));
  EXPECT_EQ(entries[1].code_bytes, 4u);
  EXPECT_EQ(entries[1].side_bytes, 15u + 4u);
  EXPECT_EQ(entries[2].dense_bytes, 4096u);
  EXPECT_EQ(entries[3].dense_bytes, 20u);
  EXPECT_EQ(report.total_bytes(), 524288u + 4096 + 23 + 4096 + 20 + 100);
  EXPECT_EQ(report.original_bytes(), 4u * (4096 * 1024 + 27 + 1024 + 10));
  EXPECT_DOUBLE_EQ(report.ratio(),
                   static_cast<double>(report.original_bytes()) / static_cast<double>(report.total_bytes()));
}

TEST(SizeReport, TableAndJsonSayTheSame) {
  SizeReport report;
  report.add_quantized("decoder.layers.0.fc1.weight", PqQuantizer(8, 256), 4096, 1024, ValueStorage::f16);
  report.add_dense("decoder.layers.0.fc1.bias", 4096, ValueStorage::f32);
  report.set_header_bytes(64);
  const std::string table = report.to_table();
  EXPECT_THAT(table, testing::HasSubstr("decoder.layers.0.fc1.weight  pq d=8 K=256 fp16"));
  EXPECT_THAT(table, testing::HasSubstr("524,288"));
  EXPECT_THAT(table, testing::HasSubstr("528,384"));
  const auto json = nlohmann::json::parse(report.to_json());
  EXPECT_EQ(json["tensors"].size(), 2u);
  EXPECT_EQ(json["tensors"][0]["bytes"], 528384);
  EXPECT_EQ(json["total"]["bytes"], 528384 + 16384 + 64);
  EXPECT_THAT(table, testing::ContainsRegex("header +names, metadata +64\n"));
  EXPECT_THAT(table, testing::ContainsRegex("total .* 544,832 "));
  EXPECT_EQ(json["file_bytes"], report.total_bytes());
  EXPECT_DOUBLE_EQ(json["ratio"].get<double>(), report.ratio());
}

TEST(SizeReport, EmptyModel) {
  EXPECT_EQ(SizeReport().total_bytes(), 0u);
  EXPECT_EQ(SizeReport().ratio(), 1.0);
}

}  // namespace
}  // namespace qn::test
