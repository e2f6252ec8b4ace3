#include "ops/int8_weight.h"

#include "ops/ops.h"

namespace qn {
namespace {

OwnedTensor copy_of(const Kernels& kernels, const Tensor& x) {
  OwnedTensor y(x.shape, x.dtype, *kernels.memory);
  kernels.copy(y.view(), x);
  return y;
}

}  // namespace

Int8Weight::Int8Weight(const Kernels& kernels, const Tensor& codes, const Tensor& scale, const Tensor& zero_point)
    : rows_(codes.rows()), cols_(codes.cols()) {
  QN_CHECK(cols_ <= kMostInt8Columns,
           "int8 products add up at most {} terms, but a weight has {} columns: evaluate it without int8 products",
           kMostInt8Columns, cols_);
  QN_ASSERT(codes.dtype == DType::u8 && scale.dtype == DType::f32 && zero_point.dtype == DType::f32);
  QN_ASSERT(scale.elements() == zero_point.elements() && (scale.elements() == 1 || scale.elements() == rows_),
            "{} scales and {} zero points for {} rows", scale.elements(), zero_point.elements(), rows_);
  packed_ = Buffer(static_cast<size_t>(packed_int8_bytes(rows_, cols_)), *kernels.memory);
  scales_ = copy_of(kernels, scale);
  zero_points_ = copy_of(kernels, zero_point);
  kernels.pack_int8(packed_.data(), codes);
}

Int8MatmulArgs Int8Weight::product() const {
  Int8MatmulArgs args;
  args.weight = packed_.data();
  args.scales = scales_.view().as<float>();
  args.zero_points = zero_points_.view().as<float>();
  args.grid_per_row = scales_.view().elements() > 1;
  args.n = rows_;
  return args;
}

void multiply_int8_into(Tape& tape, const Tensor& y, int64_t column, const Var& x, const Int8Weight& weight,
                        const ActivationGrid& grid, const Var& bias) {
  QN_ASSERT(!tape.recording(), "an int8 product has no gradient");
  QN_ASSERT(x.value.cols() == weight.cols(), "weight [{}, {}] on input {}", weight.rows(), weight.cols(),
            x.value.shape.to_string());
  QN_ASSERT(y.dtype == x.value.dtype && y.rows() == x.value.rows() && column + weight.rows() <= y.cols(),
            "results of weight [{}, {}] on {} from column {} of {}", weight.rows(), weight.cols(),
            x.value.shape.to_string(), column, y.shape.to_string());
  QN_ASSERT(grid.bits >= 1 && grid.bits <= 8, "activations of {} bits", grid.bits);
  Int8MatmulArgs args = weight.product();
  args.x = x.value;
  args.grid = grid;
  args.y = y;
  args.column = column;
  tape.k.matmul_int8(args);
  if (bias.value.defined()) tape.k.add_bias(y, column, bias.value);
}

Var linear_int8(Tape& tape, const Var& x, const Int8Weight& weight, const ActivationGrid& grid, const Var& bias) {
  const Var y = tape.result({x.value.rows(), weight.rows()});
  multiply_int8_into(tape, y.value, 0, x, weight, grid, bias);
  return y;
}

}  // namespace qn
