// Products with matrices of codes, of every instruction set that this processor has, against products with what the
// codes stand for, in double.
#include <gtest/gtest.h>

#include <limits>
#include <optional>

#include "code_checks.h"
#include "core/random.h"
#include "ops/cpu/codes_variants.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

/// Restores the fastest variant.
struct Variant {
  explicit Variant(const cpu::CodesVariant& variant) { cpu::use_codes_variant(&variant); }
  ~Variant() { cpu::use_codes_variant(nullptr); }
};

void check_product(const CodedMatrix& w, int64_t m, DType dtype, bool transposed, double tolerance,
                   std::optional<cpu::CodesPath> path = {}) {
  check_product(cpu_kernels(), w, m, dtype, transposed, tolerance, [&](const CodeMatmulArgs& args) {
    path ? cpu::matmul_codes_by(*path, args) : cpu_kernels().matmul_codes(args);
  });
}

constexpr double kFloat = 1e-6;  // of the sum of magnitudes: some roundings of 6e-8

constexpr cpu::CodesPath kPaths[] = {cpu::CodesPath::byte_tables, cpu::CodesPath::float_tables,
                                     cpu::CodesPath::token_tables, cpu::CodesPath::dots, cpu::CodesPath::tiles};

TEST(Codes, EveryWayInEveryInstructionSet) {
  for (const CodeCase& c : code_cases()) {
    const CodedMatrix w(c, cpu_kernels());
    for (const cpu::CodesVariant* variant : cpu::codes_variants()) {
      const Variant use(*variant);
      for (const cpu::CodesPath path : kPaths) {
        SCOPED_TRACE(fmt::format("{} {} {}", variant->name, cpu::name_of(path), c.text()));
        if (!serves(path, w.weight().view(), DType::f32, false)) continue;
        check_product(w, 1, DType::f32, false, kFloat, path);
        if (path == cpu::CodesPath::dots && serves(path, w.weight().view(), DType::f32, true))
          check_product(w, 2, DType::f32, true, kFloat, path);
        if (path == cpu::CodesPath::token_tables)
          check_product(w, variant->tokens + 3, DType::f32, false, kFloat, path);
      }
    }
  }
}

TEST(Codes, FewAndManyTokens) {
  for (const CodeCase& c : code_cases())
    for (const int64_t m : {2, 5, 6, 70}) {
      SCOPED_TRACE(fmt::format("{} tokens, {}", m, c.text()));
      check_product(CodedMatrix(c, cpu_kernels()), m, DType::f32, false, kFloat);
    }
}

TEST(Codes, TransposedAndOtherTypes) {
  for (const CodeCase& c : code_cases()) {
    SCOPED_TRACE(c.text());
    const CodedMatrix w(c, cpu_kernels());
    for (const int64_t m : {1, 9}) {
      check_product(w, m, DType::f32, true, kFloat);
      check_product(w, m, DType::f64, true, 1e-14);
      check_product(w, m, DType::f64, false, 1e-14);
      check_product(w, m, DType::bf16, false, 0.02);
    }
  }
}

/// The scale of tables follows the largest block of inputs: small ones beside it still count as they do in
/// floats, whose sums have this error when they are taken in order.
TEST(Codes, InputsOfVeryDifferentSize) {
  const CodedMatrix w({.rows = 300, .cols = 512, .block = 8, .levels = 256}, cpu_kernels());
  const CodeMatrix& view = w.weight().view();
  for (const float size : {1.0f, 1e-30f, 1e30f})
    for (const float outlier : {0.0f, 1.0f, 1000.0f}) {
      std::vector<float> x = random_floats(view.cols, 2), y(static_cast<size_t>(view.rows));
      for (float& v : x) v *= size;
      x[77] = outlier * size;
      cpu_kernels().matmul_codes(
          {.weight = view, .x = view_of(x.data(), {1, view.cols}), .y = view_of(y.data(), {1, view.rows})});
      const Expected e = expected_product(w, x, 1, false);
      for (size_t r = 0; r < y.size(); ++r) ASSERT_NEAR(y[r], e.y[r], 4e-6 * e.size[r]) << size << ' ' << outlier;
    }
}

TEST(Codes, ZerosAndWhatIsNotFinite) {
  const CodedMatrix w({.rows = 300, .cols = 64, .block = 8, .levels = 256}, cpu_kernels());
  const CodeMatrix& view = w.weight().view();
  std::vector<float> x(64), y(300, 5.0f);
  const CodeMatmulArgs args{.weight = view, .x = view_of(x.data(), {1, 64}), .y = view_of(y.data(), {1, 300})};
  cpu_kernels().matmul_codes(args);
  for (const float v : y) ASSERT_EQ(v, 0.0f);
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    x[3] = bad;
    cpu_kernels().matmul_codes(args);
    for (const float v : y) ASSERT_FALSE(std::isfinite(v));
  }
}

TEST(Codes, ShapesThatDoNotFitAreRefused) { check_refusals(cpu_kernels()); }

TEST(Codes, RowsAreLookedUpAndDecoded) {
  for (const CodeCase& c : code_cases()) {
    SCOPED_TRACE(c.text());
    const CodedMatrix w(c, cpu_kernels());
    for (const DType dtype : {DType::f32, DType::f64, DType::bf16}) {
      const double tolerance = dtype == DType::bf16 ? 0.01 : dtype == DType::f32 ? 1e-6 : 1e-15;
      const OwnedTensor dense({c.rows, c.cols}, dtype);
      cpu_kernels().decode_codes(dense.view(), w.weight().view());
      EXPECT_TRUE(close(to_doubles(cpu_kernels(), dense.view()), w.dense(), tolerance));
      const std::vector<int32_t> ids{static_cast<int32_t>(c.rows - 1), -1, 0, static_cast<int32_t>(c.rows / 2)};
      const OwnedTensor rows({4, c.cols}, dtype);
      cpu_kernels().fill(rows.view(), 3.0);
      cpu_kernels().lookup_codes(rows.view(), w.weight().view(), ids.data(), 0.5);
      std::vector<double> wanted;
      for (const int32_t id : ids)
        for (int64_t l = 0; l < c.cols; ++l)
          wanted.push_back(id < 0 ? 0.0 : 0.5 * w.dense()[static_cast<size_t>(id * c.cols + l)]);
      EXPECT_TRUE(close(to_doubles(cpu_kernels(), rows.view()), wanted, tolerance));
    }
  }
}

TEST(Codes, MemoryIsThatOfCodesAndCentroids) {
  const CodedMatrix w({.rows = 4096, .cols = 1024, .block = 8, .levels = 256, .scales = true}, cpu_kernels());
  EXPECT_LE(w.weight().bytes(), 4096 * 128 + 256 * 8 * 4 + 4096 + 256 * 4 + 64);
}

}  // namespace
}  // namespace qn::test
