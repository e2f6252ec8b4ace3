// Entries of the op table for matrices of codes.
#include <memory>

#include "code_cases.h"
#include "table_parts.h"

namespace qn::test {

void add_codes(Cases& cases) {
  const auto add = [&](const std::string& name, const CodeCase& c, int64_t m) {
    const auto with_weight = [c](Tape& t, const auto& use) {
      const auto copied = [&](const auto* from, int64_t count) {
        using T = std::remove_cvref_t<decltype(*from)>;
        return from == nullptr ? nullptr : uploaded(t, std::vector<T>(from, from + count));
      };
      const CodedMatrix made(c, cpu_kernels());  // the tape outlives it
      CodeMatrix w = made.weight().view();
      w.codes = copied(w.codes, std::ssize(made.weight().codes()) + kCodePadding);
      w.centroids = copied(w.centroids, w.levels * w.block);
      w.row_scales = copied(w.row_scales, w.rows);
      w.row_scale_values = copied(w.row_scale_values, 256);
      w.scales = copied(w.scales, w.grid_per_row ? w.rows : 1);
      w.zero_points = copied(w.zero_points, w.grid_per_row ? w.rows : 1);
      return std::vector<Var>{{use(w), nullptr}};
    };
    cases.push_back({.name = "matmul_codes_" + name,
                     .inputs = {{{m, c.cols}}},
                     .forward =
                         [=](Tape& t, Inputs x) {
                           return with_weight(t, [&](const CodeMatrix& w) {
                             const Tensor y = t.tensor({m, w.rows});
                             t.k.matmul_codes({.weight = w, .x = x[0].value, .y = y});
                             return y;
                           });
                         },
                     .differentiable = false,
                     .of_codes = true});
    cases.push_back({.name = "lookup_codes_" + name,
                     .forward =
                         [=](Tape& t, Inputs) {
                           return with_weight(t, [&](const CodeMatrix& w) {
                             const Tensor y = t.tensor({3, w.cols});
                             t.k.lookup_codes(y, w, t.upload(std::vector<int32_t>{2, -1, 0}), 1.5);
                             return y;
                           });
                         },
                     .differentiable = false,
                     .of_codes = true});
    cases.push_back({.name = "decode_codes_" + name,
                     .forward =
                         [=](Tape& t, Inputs) {
                           return with_weight(t, [&](const CodeMatrix& w) {
                             const Tensor y = t.parameter_tensor({w.rows, w.cols});
                             t.k.decode_codes(y, w);
                             return y;
                           });
                         },
                     .differentiable = false,
                     .of_codes = true});
  };
  add("blocks", {.rows = 300, .cols = 64, .block = 8, .levels = 256, .scales = true}, 1);
  add("large_blocks", {.rows = 1500, .cols = 256, .block = 4, .levels = 200}, 1);
  add("many_blocks", {.rows = 70, .cols = 64, .block = 8, .levels = 256}, 9);
  add("grid", {.rows = 300, .cols = 65, .bits = 4, .scales = true}, 1);
  add("many_grid", {.rows = 300, .cols = 64, .bits = 8}, 9);
}

}  // namespace qn::test
