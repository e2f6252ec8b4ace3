#include "quant/row_scales.h"

#include <algorithm>
#include <cmath>

#include "ops/host_access.h"

namespace qn {
namespace {

constexpr double kAsGoodAsZero = 0x1p-30;

std::vector<double> mean_squares(const Kernels& kernels, const Tensor& weight) {
  const HostView view(kernels, weight);
  const int64_t rows = weight.shape[0], cols = weight.shape[1];
  const float* values = view.view().as<float>();
  std::vector<double> result(static_cast<size_t>(rows), 0.0);
  for (int64_t r = 0; r < rows; ++r) {
    double& sum = result[static_cast<size_t>(r)];
    for (int64_t i = r * cols; i < (r + 1) * cols; ++i) sum += static_cast<double>(values[i]) * values[i];
    sum /= static_cast<double>(cols);
  }
  return result;
}

}  // namespace

ScaledRows::ScaledRows(const Kernels& kernels, const Tensor& weight, std::span<const float> importance) {
  const std::vector<double> squares = mean_squares(kernels, weight);
  const auto importance_of = [&](size_t r) { return importance.empty() ? 1.0 : static_cast<double>(importance[r]); };
  double sum = 0.0, weights = 0.0, largest = 0.0;
  for (size_t r = 0; r < squares.size(); ++r) {
    sum += importance_of(r) * squares[r];
    weights += importance_of(r);
    largest = std::max(largest, squares[r]);
  }
  const double mean = sum > 0.0 ? sum / weights : 1.0;
  std::vector<float> inverse;
  for (size_t r = 0; r < squares.size(); ++r) {
    const bool zero = !(squares[r] > largest * kAsGoodAsZero * kAsGoodAsZero);
    inverse.push_back(zero ? 0.0f : static_cast<float>(std::sqrt(mean / squares[r])));
    importance_.push_back(zero ? 0.0f : static_cast<float>(importance_of(r) * squares[r] / mean));
  }
  values_ = OwnedTensor(weight.shape, DType::f32, *kernels.memory);
  OwnedTensor factors({std::ssize(inverse)}, DType::f32, *kernels.memory);
  upload(kernels, factors.view(), view_of(inverse.data(), {std::ssize(inverse)}));
  kernels.scale_rows(values_.view(), weight, factors.view(), 0);
}

std::vector<float> fitted_row_scales(const float* weight, const PqTable& table,
                                     std::span<const float> column_importance) {
  std::vector<float> unit(static_cast<size_t>(table.rows * table.cols));
  decode(table, unit.data());
  std::vector<float> scales;
  for (int64_t r = 0; r < table.rows; ++r) {
    double product = 0.0, square = 0.0;
    for (int64_t c = 0; c < table.cols; ++c) {
      const size_t i = static_cast<size_t>(r * table.cols + c);
      const double u = unit[i], h = column_importance.empty() ? 1.0 : column_importance[static_cast<size_t>(c)];
      product += h * u * static_cast<double>(weight[i]);
      square += h * u * u;
    }
    scales.push_back(square > 0.0 ? static_cast<float>(product / square) : 0.0f);
  }
  return scales;
}

}  // namespace qn
