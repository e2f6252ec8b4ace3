// Uniform scalar quantization as a Quantizer: codes and grid of a ScalarTable.
#pragma once

#include "quant/quantizer.h"
#include "quant/scalar_quantizer.h"

namespace qn {

/// One code of 2..8 bits per element, row by row. Side values "scale" and "zero_point", one of each per tensor or per
/// row, stay float32. Row importances are ignored: rows with a grid of their own do not compete.
class IntQuantizer : public Quantizer {
 public:
  static constexpr const char* kType = "int";
  /// Throws qn::Error for other than 2..8 bits.
  explicit IntQuantizer(ScalarOptions options);
  /// Options "bits" and "range": tensor, channel, channel_affine or histogram.
  static std::shared_ptr<const Quantizer> make(const QuantizerOptions& options);
  static ScalarOptions options_from(const QuantizerOptions& options);

  std::string type() const override { return kType; }
  QuantizerOptions options() const override;
  std::string text() const override;
  void check(int64_t rows, int64_t cols, const std::string& name) const override;
  QuantizedLayout layout(int64_t rows, int64_t cols) const override;
  QuantizedTensor quantize(const float* weight, int64_t rows, int64_t cols,
                           std::span<const float> row_importance) const override;
  void decode(const QuantizedTensor& tensor, float* weight) const override;
  void check_values(const QuantizedTensor& tensor, const std::string& name) const override;

 private:
  ScalarTable table_of(const QuantizedTensor& tensor) const;
  ScalarOptions options_;
};

}  // namespace qn
