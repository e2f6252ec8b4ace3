// Product quantization as a Quantizer: codes and codebook of a PqTable.
#pragma once

#include "quant/product_quantizer.h"
#include "quant/quantizer.h"

namespace qn {

/// Blocks of d adjacent columns, K centroids. Codes are in the order of PqTable, their shape is [cols / d, rows]; the
/// side values "centroids" [K, d] are trainable, and so are, where rows have scales, "row_scales" [rows]: factors of
/// the decoded rows (row_scales.h). quantize() is a k-means of 15 iterations in this process, whose K is capped
/// (capped_centroids()).
class PqQuantizer : public Quantizer {
 public:
  static constexpr const char* kType = "pq";
  static constexpr const char* kCentroids = "centroids";
  static constexpr const char* kRowScales = "row_scales";
  /// Throws qn::Error unless d is positive and K in 1..65536.
  PqQuantizer(int64_t block_size, int64_t n_centroids, bool row_scales = false);
  /// Options "block_size" and "n_centroids", and for rows with scales "row_scales", which is "rms".
  static std::shared_ptr<const Quantizer> make(const QuantizerOptions& options);

  std::string type() const override { return kType; }
  QuantizerOptions options() const override;
  std::string text() const override;
  void check(int64_t rows, int64_t cols, const std::string& name) const override;
  QuantizedLayout layout(int64_t rows, int64_t cols) const override;
  QuantizedTensor quantize(const float* weight, int64_t rows, int64_t cols,
                           std::span<const float> row_importance) const override;
  void decode(const QuantizedTensor& tensor, float* weight) const override;
  std::optional<KMeansShape> kmeans() const override { return KMeansShape{block_size_, n_centroids_, row_scales_}; }

 private:
  int64_t block_size_, n_centroids_;
  bool row_scales_;
};

/// Codes and centroids of `table` as a tensor of `quantizer`, whose kmeans() must be the table's; `row_scales` where it
/// has some.
QuantizedTensor tensor_of_table(std::shared_ptr<const Quantizer> quantizer, PqTable table,
                                std::vector<float> row_scales = {});
/// The inverse, counts included, without scales.
PqTable table_of_tensor(const QuantizedTensor& tensor);

}  // namespace qn
