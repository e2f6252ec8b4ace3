// bf16 products in every layout against double, as oneDNN computes them and in float on converted copies.
#include "ops/cpu/matmul_bf16.h"

#include <gtest/gtest.h>

#include <vector>

#include "core/random.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

using Product = void (*)(const MatmulArgs&);

struct Problem {
  int64_t m, n, k;
  bool transpose_a, transpose_b;
  DType dtype_c;
  int beta;
};

std::vector<Problem> problems() {
  std::vector<Problem> all;
  for (const auto& [m, n, k] :
       {std::array<int64_t, 3>{1, 1, 1}, {3, 5, 7}, {17, 33, 9}, {64, 48, 32}, {130, 67, 129}, {1, 300, 65}})
    for (const bool transpose_a : {false, true})
      for (const bool transpose_b : {false, true})
        for (const DType dtype_c : {DType::bf16, DType::f32})
          for (const int beta : {0, 1}) all.push_back({m, n, k, transpose_a, transpose_b, dtype_c, beta});
  return all;
}

constexpr int64_t kGap = 3;  // columns between the rows of every matrix that belong to somebody else

std::vector<bfloat16> random_matrix(int64_t elements, uint64_t id) {
  const RandomStream stream({.seed = 5, .purpose = Purpose::test, .id = id});
  std::vector<bfloat16> values(static_cast<size_t>(elements));
  for (size_t i = 0; i < values.size(); ++i) values[i] = bfloat16(static_cast<float>(stream.normal(i)));
  return values;
}

template <typename C>
void check(Product product, const Problem& p) {
  const int64_t a_rows = p.transpose_a ? p.k : p.m, a_cols = p.transpose_a ? p.m : p.k;
  const int64_t b_rows = p.transpose_b ? p.n : p.k, b_cols = p.transpose_b ? p.k : p.n;
  const int64_t lda = a_cols + kGap, ldb = b_cols + kGap, ldc = p.n + kGap;
  const auto a = random_matrix(a_rows * lda, 1), b = random_matrix(b_rows * ldb, 2),
             before = random_matrix(p.m * ldc, 3);
  std::vector<C> c(before.begin(), before.end());
  product({.dtype = DType::bf16,
           .dtype_c = p.dtype_c,
           .transpose_a = p.transpose_a,
           .transpose_b = p.transpose_b,
           .m = p.m,
           .n = p.n,
           .k = p.k,
           .a = a.data(),
           .lda = lda,
           .b = b.data(),
           .ldb = ldb,
           .c = c.data(),
           .ldc = ldc,
           .beta = p.beta});
  std::vector<double> actual, expected;
  for (int64_t i = 0; i < p.m; ++i)
    for (int64_t j = 0; j < ldc; ++j) {
      const auto at = static_cast<size_t>(i * ldc + j);
      actual.push_back(c[at]);
      expected.push_back(before[at]);
      if (j >= p.n) continue;  // the gap stays
      double sum = p.beta * static_cast<double>(before[at]);
      for (int64_t l = 0; l < p.k; ++l)
        sum += static_cast<double>(a[static_cast<size_t>(p.transpose_a ? l * lda + i : i * lda + l)]) *
               static_cast<double>(b[static_cast<size_t>(p.transpose_b ? j * ldb + l : l * ldb + j)]);
      expected.back() = sum;
    }
  EXPECT_TRUE(close(actual, expected, sizeof(C) == 2 ? kBfloat16RoundingTolerance : kSummationTolerance))
      << p.m << "x" << p.n << "x" << p.k << (p.transpose_a ? " A^T" : "") << (p.transpose_b ? " B^T" : "") << " to "
      << name_of(p.dtype_c) << ", beta " << p.beta;
}

void check_all(Product product) {
  for (const Problem& p : problems()) p.dtype_c == DType::bf16 ? check<bfloat16>(product, p) : check<float>(product, p);
}

TEST(MatmulBf16, OnConvertedCopies) { check_all(cpu::matmul_bf16_converted); }

TEST(MatmulBf16, ByOneDnn) {
  if (!__builtin_cpu_supports("avx512bw")) GTEST_SKIP() << "oneDNN has no bf16 on this processor";
  check_all(cpu::matmul_bf16_native);
  check_all(cpu::matmul_bf16_native);  // from the kept primitives
}

TEST(MatmulBf16, AsTheKernel) { check_all(cpu_kernels().matmul); }

}  // namespace
}  // namespace qn::test
