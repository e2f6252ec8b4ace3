// Product quantization as a Quantizer: codes and codebook of a PqTable.
#pragma once

#include "quant/product_quantizer.h"
#include "quant/quantizer.h"

namespace qn {

/// Blocks of d adjacent columns, K centroids. Codes are in the order of PqTable, their shape is [cols / d, rows]; the
/// side values "centroids" [K, d] are trainable. quantize() is a k-means of 15 iterations in this process, whose K is
/// capped (capped_centroids()).
class PqQuantizer : public Quantizer {
 public:
  static constexpr const char* kType = "pq";
  static constexpr const char* kCentroids = "centroids";
  /// Throws qn::Error unless d is positive and K in 1..65536.
  PqQuantizer(int64_t block_size, int64_t n_centroids);
  /// Options "block_size" and "n_centroids".
  static std::shared_ptr<const Quantizer> make(const QuantizerOptions& options);

  std::string type() const override { return kType; }
  QuantizerOptions options() const override;
  std::string text() const override;
  void check(int64_t rows, int64_t cols, const std::string& name) const override;
  QuantizedLayout layout(int64_t rows, int64_t cols) const override;
  QuantizedTensor quantize(const float* weight, int64_t rows, int64_t cols,
                           std::span<const float> row_importance) const override;
  void decode(const QuantizedTensor& tensor, float* weight) const override;
  std::optional<KMeansShape> kmeans() const override { return KMeansShape{block_size_, n_centroids_}; }

 private:
  int64_t block_size_, n_centroids_;
};

/// Codes and centroids of `table` as a tensor of `quantizer`, whose kmeans() must be the table's.
QuantizedTensor tensor_of_table(std::shared_ptr<const Quantizer> quantizer, PqTable table);
/// The inverse, counts included.
PqTable table_of_tensor(const QuantizedTensor& tensor);

}  // namespace qn
