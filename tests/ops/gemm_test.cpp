// Products of large fp32 matrices, and attention by the same tiles, with every instruction set that this processor has.
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>

#include "core/random.h"
#include "ops/cpu/gemm_blocks.h"
#include "ops/cpu/gemm_variants.h"
#include "ops/kernels.h"
#include "random_floats.h"

namespace qn::test {
namespace {

/// Restores the fastest variant and the number of threads.
struct Setting {
  Setting(const cpu::GemmVariant* variant, int threads) {
    cpu::use_gemm_variant(variant);
    omp_set_num_threads(threads);
  }
  ~Setting() {
    cpu::use_gemm_variant(nullptr);
    omp_set_num_threads(before);
  }
  int before = omp_get_max_threads();
};

struct Case {
  bool transpose_a, transpose_b;
  int64_t m, n, k;
  float alpha, beta;

  int64_t lda() const { return (transpose_a ? m : k) + 3; }
  int64_t ldb() const { return (transpose_b ? k : n) + 5; }
  int64_t ldc() const { return n + 2; }
  std::vector<float> a() const { return random_floats((transpose_a ? k : m) * lda(), 1); }
  std::vector<float> b() const { return random_floats((transpose_b ? n : k) * ldb(), 2); }
  std::vector<float> c() const { return random_floats(m * ldc(), 3); }

  std::vector<float> product(const cpu::GemmVariant* variant, int threads) const {
    const Setting setting(variant, threads);
    const std::vector<float> x = a(), y = b();
    std::vector<float> result = c();
    EXPECT_TRUE(cpu::gemm_by_blocks(transpose_a, transpose_b, m, n, k, alpha, x.data(), lda(), y.data(), ldb(), beta,
                                    result.data(), ldc()));
    return result;
  }
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const bool transpose_a : {false, true})
    for (const bool transpose_b : {false, true}) {
      all.push_back({transpose_a, transpose_b, 64, 64, 512, 1.0f, 0.0f});
      all.push_back({transpose_a, transpose_b, 101, 77, 333, 0.5f, 1.0f});   // nothing is whole
      all.push_back({transpose_a, transpose_b, 300, 289, 49, -2.0f, 1.0f});  // one depth, two columns of units
      all.push_back({transpose_a, transpose_b, 71, 531, 257, 1.0f, 0.0f});   // a depth of one
    }
  return all;
}

TEST(GemmByBlocks, EqualsTheProductInDouble) {
  for (const Case& c : cases())
    for (const cpu::GemmVariant* variant : cpu::gemm_variants()) {
      const std::vector<float> a = c.a(), b = c.b(), before = c.c(), result = c.product(variant, 2);
      for (int64_t i = 0; i < c.m; ++i)
        for (int64_t j = 0; j < c.ldc(); ++j) {
          const auto at = static_cast<size_t>(i * c.ldc() + j);
          if (j >= c.n) {
            ASSERT_EQ(result[at], before[at]) << variant->name << ": beyond the matrix";
            continue;
          }
          double sum = 0.0, size = 0.0;
          for (int64_t l = 0; l < c.k; ++l) {
            const double term =
                static_cast<double>(a[static_cast<size_t>(c.transpose_a ? l * c.lda() + i : i * c.lda() + l)]) *
                static_cast<double>(b[static_cast<size_t>(c.transpose_b ? j * c.ldb() + l : l * c.ldb() + j)]);
            sum += term;
            size += std::abs(term);
          }
          const double expected = static_cast<double>(c.alpha) * sum + static_cast<double>(c.beta * before[at]);
          ASSERT_NEAR(static_cast<double>(result[at]), expected, 1e-6 * (2.0 * size + std::abs(expected)))
              << variant->name << " " << c.m << " x " << c.n << " x " << c.k << " at " << i << ", " << j;
        }
    }
}

TEST(GemmByBlocks, HasTheSameBitsForAllThreadsAndInstructionSets) {
  if (cpu::gemm_variants().empty()) GTEST_SKIP() << "this processor has no AVX2";
  for (const Case& c : cases()) {
    const std::vector<float> one = c.product(cpu::gemm_variants().front(), 1);
    for (const cpu::GemmVariant* variant : cpu::gemm_variants())
      for (const int threads : {1, 2, 5}) EXPECT_EQ(c.product(variant, threads), one) << variant->name << threads;
  }
}

TEST(GemmByBlocks, LeavesSmallProductsAlone) {
  float c = 7.0f;
  EXPECT_FALSE(cpu::gemm_by_blocks(false, false, 1, 1, 1, 1.0f, &c, 1, &c, 1, 0.0f, &c, 1));
  EXPECT_EQ(c, 7.0f);
}

/// Gradients and result of attention over sequences of unequal lengths, one behind another.
template <typename T>
std::vector<std::vector<T>> attention_results(bool causal, DType dtype) {
  constexpr int64_t kHeads = 3, kDim = 20, kWidth = kHeads * kDim;
  const std::vector<int32_t> lengths{150, 1, 64, 97}, begins{0, 150, 151, 215};
  const int64_t rows = 312, longest = 150;
  const auto tensor = [&](std::vector<T>& values, int64_t cols) {
    return Tensor{values.data(), {std::ssize(values) / cols, cols}, dtype};
  };
  const auto random = [&](int64_t n, uint64_t id) {
    const std::vector<float> floats = random_floats(n, id);
    return std::vector<T>(floats.begin(), floats.end());
  };
  std::vector<T> qkv = random(rows * 3 * kWidth, 5), dout = random(rows * kWidth, 6);
  std::vector<T> out(dout.size()), dqkv(qkv.size()), lse(static_cast<size_t>(4 * kHeads * longest));
  const RowSequences sequences{longest, begins.data(), lengths.data()};
  const AttentionArgs args{.batch = 4,
                           .queries = sequences,
                           .keys = sequences,
                           .heads = kHeads,
                           .head_dim = kDim,
                           .causal = causal,
                           .dropout = 0.2,
                           .key = {.seed = 5, .purpose = Purpose::dropout, .id = 3}};
  const Tensor x = tensor(qkv, 3 * kWidth), y = tensor(out, kWidth), dx = tensor(dqkv, 3 * kWidth);
  cpu_kernels().attention(y, tensor(lse, 1), x, x, args);
  cpu_kernels().attention_grad(dx, dx, tensor(dout, kWidth), y, tensor(lse, 1), x, x, args);
  return {out, dqkv};
}

TEST(AttentionByTiles, EqualsThatInDoubleWithAnyThreads) {
  for (const bool causal : {false, true}) {
    const auto expected = attention_results<double>(causal, DType::f64);
    for (const cpu::GemmVariant* variant : cpu::gemm_variants()) {
      std::vector<std::vector<float>> one;
      for (const int threads : {1, 2, 5}) {
        const Setting setting(variant, threads);
        const auto results = attention_results<float>(causal, DType::f32);
        for (size_t part = 0; part < results.size(); ++part)
          for (size_t i = 0; i < results[part].size(); ++i)
            ASSERT_NEAR(static_cast<double>(results[part][i]), expected[part][i], 1e-4) << variant->name << i;
        if (threads == 1) one = results;
        EXPECT_EQ(results, one) << variant->name << ", threads: " << threads;
      }
    }
  }
}

/// Whether the result of attention is the same in the place of its queries as beside them. P: of sums.
template <typename T, typename P = T>
void expect_same_in_place() {
  constexpr int64_t kBatch = 2, kTime = 130, kHeads = 2, kDim = 20, kWidth = kHeads * kDim, kRows = kBatch * kTime;
  const auto random = [](int64_t n, uint64_t id) {
    std::vector<T> values;
    for (const float value : random_floats(n, id)) values.push_back(static_cast<T>(value));
    return values;
  };
  for (const bool causal : {false, true}) {
    std::vector<T> q = random(kRows * kWidth, 7), kv = random(kRows * 2 * kWidth, 8), out(q.size());
    std::vector<P> lse(static_cast<size_t>(kRows * kHeads));
    const Tensor queries = view_of(q.data(), {kRows, kWidth}), keys = view_of(kv.data(), {kRows, 2 * kWidth}),
                 sums = view_of(lse.data(), {kRows * kHeads});
    const AttentionArgs args = self_attention(kBatch, kTime, kHeads, kDim, causal);
    cpu_kernels().attention(view_of(out.data(), {kRows, kWidth}), sums, queries, keys, args);
    cpu_kernels().attention(queries, sums, queries, keys, args);
    EXPECT_TRUE(std::equal(q.begin(), q.end(), out.begin(), [](T a, T b) {
      return static_cast<double>(a) == static_cast<double>(b);
    })) << causal;
  }
}

TEST(AttentionByTiles, MayWriteOverItsQueries) {
  for (const cpu::GemmVariant* variant : cpu::gemm_variants()) {
    const Setting setting(variant, 2);
    expect_same_in_place<float>();
  }
  expect_same_in_place<double>();
  expect_same_in_place<bfloat16, float>();
}

}  // namespace
}  // namespace qn::test
