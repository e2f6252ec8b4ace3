// The section `ipq` of a configuration.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "compress/noise.h"
#include "compress/norm_storage.h"
#include "compress/size_report.h"
#include "core/config.h"
#include "quant/product_quantizer.h"

namespace qn {

/// What weights are represented by.
enum class QuantizeMethod { pq, integer };
template <>
struct EnumNames<QuantizeMethod> {
  static constexpr EnumName<QuantizeMethod> kAll[] = {{QuantizeMethod::pq, "pq"}, {QuantizeMethod::integer, "int"}};
};

/// The section `ipq`: iterative product quantization (reference section 3).
struct IpqConfig {
  QuantizeMethod method = QuantizeMethod::pq;
  std::string quantizer;
  int64_t bits = 8;
  RangeMethod range = RangeMethod::tensor;
  Activations activations = Activations::none;
  int64_t activation_bits = 8;
  RangeMethod activation_range = RangeMethod::tensor;
  int64_t calibration_batches = 64;
  std::string rules;
  std::vector<std::string> stages;
  std::optional<int64_t> updates_per_stage;
  int64_t kmeans_iterations = 15;
  std::vector<std::string> row_scales;
  double frequency_exponent = 1.0;
  std::vector<double> input_exponent;
  CentroidGradient centroid_gradient = CentroidGradient::sum;
  bool dense_softmax = false;
  int64_t reassign_updates = 0;
  double reassign_share = 0.01;
  bool restart_schedule = false;
  int64_t save_every_kmeans_iterations = 0;
  ValueStorage centroids = ValueStorage::f16, dense = ValueStorage::f16;
  NormStorage norms = NormStorage::keep;
  std::optional<bool> measure_norms;  ///< unset: where values become coarse
  bool freeze_norms = false;
  std::optional<bool> vocabulary;  ///< unset: the task decides
  void visit(ConfigVisitor& v);
  void validate(const ConfigChecker& c) const;
};

}  // namespace qn
