// int8 products of every instruction set that this processor has, against sums in 64-bit integers and against products
// of decoded matrices in double.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/random.h"
#include "ops/cpu/int8_variants.h"
#include "ops/int8_weight.h"
#include "ops/ops.h"
#include "ops/work.h"

// Tiles of the shape that AVX512_VNNI's have, with its instruction spelled out: all of that variant but seven
// instructions, for processors that do not have them.
#define QN_ISA int8_spelled_out
namespace qn::cpu::QN_ISA {
namespace {

struct Lanes {
  static constexpr const char* kName = "spelled out";
  static constexpr int kRows = 12, kVectors = 2, kLanes = 16, kGroup = 4;
  using Code = uint8_t;
  struct Sums {
    int32_t of[kLanes];
  };
  using Weights = const int8_t*;
  static Sums zero() { return {}; }
  static Weights load(const int8_t* panel) { return panel; }
  static const Code* broadcast(const Code* codes) { return codes; }
  static Sums add_products(Sums sums, Weights weights, const Code* codes) {
    for (int c = 0; c < kLanes; ++c)
      for (int i = 0; i < kGroup; ++i) sums.of[c] += weights[c * kGroup + i] * codes[i];
    return sums;
  }
  static void store(int32_t* to, Sums sums) { std::copy(sums.of, sums.of + kLanes, to); }
};

}  // namespace
}  // namespace qn::cpu::QN_ISA
#include "ops/cpu/int8_tile.h"

namespace qn::test {
namespace {

using cpu::Int8Variant;

std::vector<const Int8Variant*> variants() {
  std::vector<const Int8Variant*> all(cpu::int8_variants().begin(), cpu::int8_variants().end());
  all.push_back(&cpu::int8_spelled_out::variant);
  return all;
}

constexpr int64_t kColumn = 2, kGap = 3;  // columns before and after the results that belong to somebody else
constexpr double kUntouched = -77.0;

struct Problem {
  int64_t m, n, k;
  std::vector<uint8_t> codes;  ///< [n, k]
  std::vector<float> scales, zero_points;
  std::vector<float> x;  ///< [m, k]
  int bits = 8;
  float scale = 0.037f, zero_point = 121.0f;

  std::string name() const {
    return std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k) + ", " + std::to_string(bits) +
           " bits, " + std::to_string(scales.size()) + " grids";
  }
  size_t grid_of(int64_t j) const { return scales.size() > 1 ? static_cast<size_t>(j) : 0; }
  int64_t weight_code(int64_t j, int64_t l) const { return codes[static_cast<size_t>(j * k + l)]; }
};

Problem random_problem(int64_t m, int64_t n, int64_t k, int weight_bits, bool grid_per_row) {
  const RandomStream stream({.seed = 5, .purpose = Purpose::test, .id = static_cast<uint64_t>(m + 7 * n + 13 * k)});
  Problem p{.m = m, .n = n, .k = k, .codes = {}, .scales = {}, .zero_points = {}, .x = {}};
  const double levels = 1 << weight_bits;
  for (int64_t i = 0; i < n * k; ++i) {
    const double level = levels * (0.5 + 0.25 * stream.normal(static_cast<uint64_t>(i)));
    p.codes.push_back(static_cast<uint8_t>(std::min(std::max(level, 0.0), levels - 1.0)));
  }
  for (int64_t i = 0; i < m * k; ++i)
    p.x.push_back(static_cast<float>(stream.normal(static_cast<uint64_t>(n * k + i))));
  for (int64_t j = 0; j < (grid_per_row ? n : 1); ++j) {
    p.scales.push_back(0.011f * static_cast<float>(1 + j % 7));
    p.zero_points.push_back(static_cast<float>(static_cast<int64_t>(levels) * (j % 5) / 4));
  }
  return p;
}

template <typename T>
using ParameterOf = std::conditional_t<std::is_same_v<T, double>, double, float>;

/// The definition, in the type that the kernels compute in.
template <typename T>
int64_t code_of(T x, const Problem& p) {
  using P = ParameterOf<T>;
  const P level = std::nearbyint(static_cast<P>(x) / static_cast<P>(p.scale) + static_cast<P>(p.zero_point));
  if (std::isnan(level)) return 0;
  return static_cast<int64_t>(std::clamp(level, P{0}, static_cast<P>((1 << p.bits) - 1)));
}

template <typename T>
std::vector<T> product_of(const Int8Variant& variant, const Problem& p, const std::vector<T>& x) {
  const Buffer packed(static_cast<size_t>(packed_int8_bytes(p.n, p.k)));
  cpu::pack_int8_as(variant, packed.data(), view_of(p.codes.data(), {p.n, p.k}));
  const int64_t width = kColumn + p.n + kGap;
  std::vector<T> y(static_cast<size_t>(p.m * width), static_cast<T>(kUntouched));
  Int8MatmulArgs args;
  args.x = view_of(x.data(), {p.m, p.k});
  args.grid = {.bits = p.bits, .scale = &p.scale, .zero_point = &p.zero_point};
  args.weight = packed.data();
  args.scales = p.scales.data();
  args.zero_points = p.zero_points.data();
  args.grid_per_row = p.scales.size() > 1;
  args.n = p.n;
  args.y = view_of(y.data(), {p.m, width});
  args.column = kColumn;
  cpu::matmul_int8_as(variant, args);
  return y;
}

template <typename T>
void check(const Int8Variant& variant, const Problem& p) {
  using P = ParameterOf<T>;
  std::vector<T> x;
  for (const float v : p.x) x.push_back(static_cast<T>(v));
  const std::vector<T> actual = product_of(variant, p, x);
  std::vector<T> exact;
  double worst = 0.0;  // distance from the product of decoded matrices, in units of what rounding may do
  const double unit = std::is_same_v<T, double> ? 1e-12 : std::is_same_v<T, float> ? 0x1p-24 : 0x1p-8;
  for (int64_t i = 0; i < p.m; ++i)
    for (int64_t c = 0; c < kColumn + p.n + kGap; ++c) {
      const int64_t j = c - kColumn;
      exact.push_back(static_cast<T>(kUntouched));
      if (j < 0 || j >= p.n) continue;
      const size_t g = p.grid_of(j);
      int64_t sum = 0;
      double decoded = 0.0, magnitude = 0.0;
      for (int64_t l = 0; l < p.k; ++l) {
        const int64_t q = code_of(x[static_cast<size_t>(i * p.k + l)], p) - static_cast<int64_t>(p.zero_point);
        const int64_t w = p.weight_code(j, l) - static_cast<int64_t>(p.zero_points[g]);
        sum += q * w;
        const double term = (static_cast<double>(p.scale) * static_cast<double>(q)) *
                            (static_cast<double>(p.scales[g]) * static_cast<double>(w));
        decoded += term;
        magnitude += std::abs(term);
      }
      const double scale = static_cast<double>(p.scale) * static_cast<double>(p.scales[g]);
      exact.back() = static_cast<T>(static_cast<P>(scale * static_cast<double>(sum)));
      const double allowed = unit * std::abs(decoded) + 1e-14 * magnitude;
      const double distance = std::abs(static_cast<double>(actual[exact.size() - 1]) - decoded);
      if (distance > 0.0) worst = std::max(worst, distance / allowed);
    }
  const auto same = [](T a, T b) { return static_cast<double>(a) == static_cast<double>(b); };
  EXPECT_TRUE(std::equal(actual.begin(), actual.end(), exact.begin(), exact.end(), same))
      << variant.name << ": " << p.name() << " into " << name_of(DTypeOf<T>::value);
  EXPECT_LE(worst, 1.01) << variant.name << ": " << p.name() << " into " << name_of(DTypeOf<T>::value);
}

void check_all(const Problem& p) {
  for (const Int8Variant* variant : variants()) {
    check<float>(*variant, p);
    check<double>(*variant, p);
    check<bfloat16>(*variant, p);
  }
}

TEST(Int8Matmul, IsExactForEverySize) {
  for (const int64_t m : {1, 2, 6, 7, 13, 25})
    for (const int64_t n : {1, 2, 15, 16, 17, 33, 70})
      for (const int64_t k : {1, 3, 4, 15, 17, 32, 100}) check_all(random_problem(m, n, k, 8, (m + n + k) % 2 == 0));
  check_all(random_problem(300, 90, 515, 8, true));  // several blocks of rows and threads
}

TEST(Int8Matmul, IsExactForEveryNumberOfBits) {
  for (int weight_bits = 2; weight_bits <= 8; ++weight_bits)
    for (int bits = 1; bits <= 8; ++bits)
      for (const bool grid_per_row : {false, true}) {
        Problem p = random_problem(8, 19, 45, weight_bits, grid_per_row);
        p.bits = bits;
        p.scale = 7.3f / static_cast<float>(1 << bits);
        p.zero_point = static_cast<float>(1 << (bits - 1));
        check_all(p);
      }
}

/// Two bytes times two bytes, added up in 16 bits, saturate for these.
TEST(Int8Matmul, DoesNotSaturate) {
  const auto filled = [](int64_t k, std::vector<uint8_t> pattern, float x_zero) {
    Problem p = random_problem(3, 5, k, 8, false);
    for (size_t i = 0; i < p.codes.size(); ++i) p.codes[i] = pattern[i % static_cast<size_t>(k) % pattern.size()];
    std::fill(p.x.begin(), p.x.end(), 1e9f);  // code 255
    p.zero_point = x_zero;
    return p;
  };
  for (const float zero : {0.0f, 128.0f, 255.0f})
    for (const auto& pattern : {std::vector<uint8_t>{255}, {0}, {255, 255, 0, 0}, {0, 255}, {127, 128}})
      for (const int64_t k : {2, 64, 1000}) check_all(filled(k, pattern, zero));
  for (const uint8_t code : {0, 255}) {  // the largest sums of 32 bits that may come
    Problem p = filled(kMostInt8Columns, {code}, 0.0f);
    p.zero_points = {255.0f - static_cast<float>(code)};
    check_all(p);
  }
}

TEST(Int8Matmul, QuantizesHalvesToEvenAndWhatIsNotFinite) {
  Problem p = random_problem(1, 1, 11, 8, false);
  p.scale = 0.25f;
  p.zero_point = 3.0f;
  const float infinity = std::numeric_limits<float>::infinity();
  p.x = {0.125f, 0.375f, -0.125f, -0.375f, 1e30f, -1e30f, infinity, -infinity, std::nanf(""), 0.1249f, 63.2f};
  const std::vector<int> expected{4, 4, 2, 2, 255, 0, 255, 0, 0, 3, 255};
  for (const Int8Variant* variant : variants())
    for (size_t l = 0; l < expected.size(); ++l) {
      std::fill(p.codes.begin(), p.codes.end(), 0);
      p.codes[l] = 1;  // picks one code out
      p.scales = {4.0f};
      p.zero_points = {0.0f};
      const std::vector<float> y = product_of(*variant, p, p.x);
      EXPECT_EQ(y[kColumn], static_cast<float>(expected[l] - 3)) << variant->name << " of " << p.x[l];
    }
}

TEST(Int8Matmul, IsChosenByWhatTheProcessorHas) {
  const auto chosen = [](bool vnni, bool avx2) {
    return std::string(cpu::choose_int8_variant({.avx512_vnni = vnni, .avx2 = avx2}).name);
  };
  EXPECT_EQ(chosen(true, true), "avx512vnni");
  EXPECT_EQ(chosen(false, true), "avx2");
  EXPECT_EQ(chosen(false, false), "baseline");
  EXPECT_EQ(cpu::int8_variants().front(), &cpu::choose_int8_variant(cpu::detect_int8_features()));
  const Int8Variant& vnni = cpu::choose_int8_variant({.avx512_vnni = true, .avx2 = true});
  const Int8Variant& spelled_out = cpu::int8_spelled_out::variant;
  EXPECT_EQ(vnni.rows, spelled_out.rows);
  EXPECT_EQ(vnni.columns, spelled_out.columns);
  EXPECT_EQ(vnni.group, spelled_out.group);
  EXPECT_EQ(vnni.wide_codes, spelled_out.wide_codes);
}

TEST(Int8Matmul, CountsItsOperations) {
  Int8MatmulArgs args;
  args.x = view_of<float>(nullptr, {3, 5});
  args.n = 7;
  EXPECT_EQ(WorkOf<&Kernels::matmul_int8>::of(args).flops, 2.0 * 3 * 5 * 7);
}

TEST(Int8Weight, TakesAByteForEachWeightAndTwelveForEachRow) {
  const Problem p = random_problem(1, 96, 208, 8, true);
  const Int8Weight weight(cpu_kernels(), view_of(p.codes.data(), {p.n, p.k}), view_of(p.scales.data(), {p.n}),
                          view_of(p.zero_points.data(), {p.n}));
  EXPECT_EQ(weight.bytes(), static_cast<size_t>(p.n * p.k + 12 * p.n));
}

TEST(Int8Weight, RefusesWhatCouldOverflow) {
  const std::vector<uint8_t> codes(kMostInt8Columns + 1);
  const float one = 1.0f;
  EXPECT_THROW(Int8Weight(cpu_kernels(), view_of(codes.data(), {1, kMostInt8Columns + 1}), view_of(&one, {1}),
                          view_of(&one, {1})),
               Error);
}

TEST(Int8Weight, HasNoGradient) {
  const std::vector<uint8_t> codes(4);
  const float one = 1.0f;
  const Int8Weight weight(cpu_kernels(), view_of(codes.data(), {2, 2}), view_of(&one, {1}), view_of(&one, {1}));
  Arena arena;
  Tape tape(cpu_kernels(), arena, DType::f32, {.recording = true});
  const Var x = tape.result({1, 2});
  EXPECT_THROW(linear_int8(tape, x, weight, {.bits = 8, .scale = &one, .zero_point = &one}, {}), InternalError);
}

}  // namespace
}  // namespace qn::test
