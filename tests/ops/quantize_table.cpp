// Entries of the op table for scalar quantization, and for scales of rows.
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <utility>

#include "ops/host_access.h"
#include "table_parts.h"

namespace qn::test {
namespace {

constexpr uint64_t kId = 78;

struct Grid {
  int bits = 4;
  bool per_row = false, symmetric = false;
};

/// Scale and zero point of the range of `of`, all made on the device.
FakeQuantize fitted(Tape& t, const Tensor& of, const Grid& grid) {
  const int64_t n = grid.per_row ? of.rows() : 1;
  const Tensor range = t.parameter_tensor({n, 2}), scale = t.parameter_tensor({n}), zero = t.parameter_tensor({n});
  t.k.value_range(range, of, false);
  t.k.range_to_grid(scale, zero, range, grid.bits, grid.symmetric);
  return {.scale = scale, .zero_point = zero, .bits = grid.bits, .id = kId};
}

/// What of x lies outside of a range that was found on other values is part of most cases.
struct Case {
  std::string name;
  Shape shape;
  Grid grid;
  double p;
  int64_t block = 1;
  bool training = true, parameter = false;
};

void add_case(Cases& cases, const Case& c) {
  const auto how = [c](Tape& t, const Tensor& of) {
    FakeQuantize result = fitted(t, of, c.grid);
    result.p = c.p;
    result.block = c.block;
    return result;
  };
  cases.push_back(
      {.name = "fake_quantize_" + c.name,
       // Ranges of floats: with ranges of values in 16 bits, ties between levels are common.
       .inputs = {{c.shape, Values::any, c.parameter}, parameter(c.shape)},
       .forward = [how](Tape& t, Inputs in) { return std::vector{fake_quantize(t, in[0], how(t, in[1].value))}; },
       .training = c.training,
       // Straight-through: the derivative is that of the clamp, and none comes from the range.
       .surrogate =
           [how](Tape& t, Inputs in) {
             const Tensor &clean = in[2].value, y = t.tensor(clean.shape), clamped = t.tensor(clean.shape);
             const FakeQuantize h = how(t, in[3].value);
             const auto clamp = [&](const Tensor& from) {
               t.k.fake_quantize(clamped, from, h.scale, h.zero_point, h.bits, 0.0, 1, {});
             };
             t.k.copy(y, fake_quantize(t, {clean, nullptr}, h).value);
             clamp(in[0].value);
             t.k.axpy(y, clamped, 1.0, 1);
             clamp(clean);
             t.k.axpy(y, clamped, -1.0, 1);
             return std::vector{Var{y, nullptr}};
           }});
}

/// With the range of the weight itself: the gradient is the weight's own.
void add_covered(Cases& cases, const std::string& name, int64_t rows, int64_t cols, const Grid& grid, double p) {
  const auto quantize = [=](Tape& t, const Var& w) {
    FakeQuantize how = fitted(t, w.value, grid);
    how.p = p;
    how.covers = true;
    return fake_quantize(t, w, how);
  };
  cases.push_back(
      {.name = "fake_quantize_covered_" + name,
       .inputs = {{{3, cols}}, parameter({rows, cols})},
       .forward = [quantize](Tape& t, Inputs x) { return std::vector{linear(t, x[0], quantize(t, x[1]), {})}; },
       .training = true,
       .surrogate =
           [quantize](Tape& t, Inputs x) {
             const Var w{t.tensor(x[1].value.shape), nullptr};
             t.k.copy(w.value, quantize(t, {x[3].value, nullptr}).value);
             t.k.axpy(w.value, x[1].value, 1.0, 1);
             t.k.axpy(w.value, x[3].value, -1.0, 1);
             return std::vector{linear(t, x[0], w, {})};
           }});
}

/// 1 at every NaN, else 0: results are compared with ==.
Var where_nan(Tape& t, const Var& x) {
  edit_on_host(t.k, x.value, [](const Tensor& host) {
    const auto mark = [](auto values) {
      for (auto& v : values) v = std::isnan(v) ? 1 : 0;
    };
    host.dtype == DType::f64 ? mark(host.span<double>()) : mark(host.span<float>());
  });
  return x;
}

/// Bounds of rows, of everything, of what came before, and with a NaN among the values.
void add_ranges(Cases& cases, int64_t rows, int64_t cols) {
  cases.push_back({.name = "value_range_" + std::to_string(rows) + "x" + std::to_string(cols),
                   .inputs = {{{rows, cols}}, parameter({rows, cols})},
                   .forward =
                       [=](Tape& t, Inputs x) {
                         const auto range = [&](int64_t n) { return Var{t.parameter_tensor({n, 2}), nullptr}; };
                         const Var all = range(1), by_row = range(rows), both = range(1), rows_of_both = range(rows),
                                   broken = range(1), broken_rows = range(rows);
                         t.k.value_range(all.value, x[0].value, false);
                         t.k.value_range(by_row.value, x[0].value, false);
                         t.k.value_range(both.value, x[0].value, false);
                         t.k.value_range(both.value, x[1].value, true);
                         t.k.value_range(rows_of_both.value, x[1].value, false);
                         t.k.value_range(rows_of_both.value, x[0].value, true);
                         const Var bad = copy_of(t, x[0]);
                         t.k.fill(bad.value.row_slice(rows / 2, 1), std::numeric_limits<double>::quiet_NaN());
                         t.k.value_range(broken_rows.value, bad.value, false);
                         t.k.value_range(broken.value, bad.value, false);
                         t.k.value_range(broken.value, x[1].value, true);
                         return std::vector{
                             all, by_row, both, rows_of_both, where_nan(t, broken), where_nan(t, broken_rows)};
                       },
                   .differentiable = false});
  for (const int bits : {2, 8})
    cases.push_back({.name = "range_to_grid_" + std::to_string(bits) + "_bits_" + std::to_string(rows),
                     .inputs = {parameter({rows, cols})},
                     .forward =
                         [=](Tape& t, Inputs x) {
                           const FakeQuantize affine = fitted(t, x[0].value, {bits, true, false}),
                                              symmetric = fitted(t, x[0].value, {bits, true, true});
                           std::vector<Var> results;
                           for (const FakeQuantize& grid : {affine, symmetric})
                             for (const Tensor& result : {grid.scale, grid.zero_point})
                               results.push_back({result, nullptr});
                           return results;
                         },
                     .differentiable = false});
}

/// Choices of types that no op makes.
void add_types(Cases& cases) {
  cases.push_back({.name = "types_of_fake_quantize",
                   .inputs = {{{9, 24}}, parameter({9, 24}), {{9, 24}}, parameter({9, 24})},
                   .forward =
                       [](Tape& t, Inputs x) {
                         const FakeQuantize how = fitted(t, x[3].value, {3, true, false});
                         std::vector<Var> results;
                         const RandomKey key = t.key(Purpose::noise, kId);
                         for (const Var& from : {x[0], x[1]})
                           for (const Var& like : {x[2], x[3]}) {
                             const Var y = copy_of(t, like), dx = copy_of(t, like), in_place = copy_of(t, like);
                             t.k.fake_quantize(y.value, from.value, how.scale, how.zero_point, 3, 0.5, 8, key);
                             t.k.fake_quantize_grad(dx.value, like.value, from.value, how.scale, how.zero_point, 3, 1);
                             t.k.fake_quantize_grad(in_place.value, in_place.value, from.value, how.scale,
                                                    how.zero_point, 3, 0);
                             results.insert(results.end(), {y, dx, in_place});
                           }
                         return results;
                       },
                   .differentiable = false});
}

}  // namespace

void add_fake_quantize(Cases& cases) {
  const Grid tensor{4, false, false}, rows{4, true, false}, symmetric{3, true, true};
  for (const Case& c : {Case{"one", {1, 1}, tensor, 0.5},
                        {"of_elements", {7, 37}, tensor, 0.4},
                        {"of_elements_by_row", {7, 37}, rows, 0.4},
                        {"of_elements_symmetric", {5, 130}, symmetric, 0.4},
                        {"of_rows_shorter_than_words", {150, 3}, rows, 0.4},
                        {"of_blocks", {9, 24}, {8, false, false}, 0.4, 8},
                        {"of_blocks_by_row", {90, 24}, rows, 0.4, 8},
                        {"of_whole_rows", {6, 20}, {2, true, false}, 0.5, 20},
                        {"large", {130, 131}, tensor, 0.3},
                        {"large_by_row", {130, 131}, rows, 0.3},
                        {"large_of_blocks", {140, 160}, rows, 0.3, 16},
                        {"everything", {130, 131}, rows, 1.0},
                        {"nothing", {130, 131}, rows, 0.0},
                        {"in_evaluation", {7, 37}, tensor, 0.2, 1, false},
                        {"of_a_parameter", {7, 37}, rows, 0.4, 1, true, true}})
    add_case(cases, c);
  add_covered(cases, "by_tensor", 9, 24, tensor, 0.4);
  add_covered(cases, "by_row", 9, 24, rows, 1.0);
  for (const auto& [n, d] : {std::pair<int64_t, int64_t>{1, 1}, {3, 100}, {130, 131}}) add_ranges(cases, n, d);
  add_types(cases);
}

void add_scale_rows(Cases& cases) {
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 1}, {5, 7}, {9, 32}, {3, 65}, {150, 128}}) {
    const auto codes = std::make_shared<const std::vector<uint16_t>>(scattered<uint16_t>(rows * cols, 6));
    const std::string size = std::to_string(rows) + "x" + std::to_string(cols);
    cases.push_back({.name = "scale_rows_" + size,
                     .inputs = {parameter({6, 1}), parameter({rows})},
                     .forward = [shape = Shape{rows, cols}, codes](Tape& t, Inputs x) {
                       const Var weight = pq_weight(t, x[0], uploaded(t, *codes), nullptr, shape);
                       return std::vector{scale_rows(t, weight, x[1])};
                     }});
    cases.push_back(
        {.name = "scale_rows_of_an_input_" + size,
         .inputs = {parameter({rows, cols}), parameter({rows})},
         .forward = [](Tape& t, Inputs x) { return std::vector{scale_rows(t, cast_to_compute(t, x[0]), x[1])}; }});
  }
}

}  // namespace qn::test
