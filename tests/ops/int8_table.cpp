// Entries of the op table for products of quantized matrices. Scales of activations are powers of two and zero points
// small: the codes are the same in every type, and so are the products but for their last rounding.
#include <memory>

#include "ops/int8_weight.h"
#include "table_parts.h"

namespace qn::test {
namespace {

struct Problem {
  std::string name;
  int64_t m, n, k;
  int weight_bits = 8, bits = 8;
  bool grid_per_row = false;
  float scale = 0.03125f, zero_point = 117.0f;  ///< of the activations
};

std::vector<uint8_t> codes_of(const Problem& p) {
  std::vector<uint8_t> codes(static_cast<size_t>(p.n * p.k));
  for (size_t i = 0; i < codes.size(); ++i)
    codes[i] = static_cast<uint8_t>((i * 2654435761U >> 7) & ((1U << p.weight_bits) - 1U));
  return codes;
}

Tensor row_of(Tape& t, const std::vector<float>& values) {
  return view_of(uploaded(t, values), {static_cast<int64_t>(values.size())});
}

Int8Weight weight_of(Tape& t, const Problem& p) {
  std::vector<float> scales, zero_points;
  for (int64_t j = 0; j < (p.grid_per_row ? p.n : 1); ++j) {
    scales.push_back(0.01f * static_cast<float>(1 + j % 5));
    zero_points.push_back(static_cast<float>((1 << p.weight_bits) * (1 + j % 3) / 4));
  }
  return {t.k, view_of(uploaded(t, codes_of(p)), {p.n, p.k}), row_of(t, scales), row_of(t, zero_points)};
}

ActivationGrid grid_of(Tape& t, const Problem& p) {
  const float* numbers = uploaded(t, std::vector<float>{p.scale, p.zero_point});
  return {.bits = p.bits, .scale = numbers, .zero_point = numbers + 1};
}

}  // namespace

void add_int8(Cases& cases) {
  const auto add = [&](const Problem& p, bool bias) {
    OpCase op{.name = "linear_int8_" + p.name, .inputs = {{{p.m, p.k}}}, .differentiable = false};
    if (bias) op.inputs.push_back(parameter({p.n}));
    op.forward = [p, bias](Tape& t, Inputs x) {
      return std::vector{linear_int8(t, x[0], weight_of(t, p), grid_of(t, p), bias ? x[1] : Var{})};
    };
    cases.push_back(std::move(op));
  };
  add({.name = "one", .m = 1, .n = 1, .k = 1}, true);
  add({.name = "one_column", .m = 5, .n = 1, .k = 7}, false);
  add({.name = "one_row", .m = 1, .n = 33, .k = 17, .grid_per_row = true}, true);
  add({.name = "whole_tiles", .m = 12, .n = 64, .k = 48}, false);
  add({.name = "large", .m = 131, .n = 67, .k = 130, .grid_per_row = true}, true);
  for (int bits = 2; bits <= 7; ++bits)
    add({.name = "of_" + std::to_string(bits) + "_bits", .m = 7, .n = 9, .k = 33, .weight_bits = bits}, false);
  for (int bits = 2; bits <= 7; ++bits) {
    const auto middle = static_cast<float>(1 << (bits - 1));
    add({.name = "on_" + std::to_string(bits) + "_bits",
         .m = 7,
         .n = 9,
         .k = 33,
         .bits = bits,
         .scale = 4.0f / middle,
         .zero_point = middle},
        false);
  }
  // Nearly all codes of the activations are the largest one: sums of two products leave 16 bits.
  add({.name = "saturated", .m = 9, .n = 35, .k = 70, .scale = 0.0078125f, .zero_point = 250.0f}, false);

  // Into some columns of a wider result; the others stay.
  const Problem p{.name = "columns", .m = 4, .n = 3, .k = 10};
  cases.push_back({.name = "multiply_int8_into_columns",
                   .inputs = {{{p.m, p.k}}, {{p.m, p.n + 4}}, parameter({p.n})},
                   .forward =
                       [p](Tape& t, Inputs x) {
                         const Var y = copy_of(t, x[1]);
                         multiply_int8_into(t, y.value, 2, x[0], weight_of(t, p), grid_of(t, p), x[2]);
                         return std::vector{y};
                       },
                   .differentiable = false});
}

}  // namespace qn::test
