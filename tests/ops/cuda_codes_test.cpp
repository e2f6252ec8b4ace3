// Products with matrices of codes on a GPU, every way that there is, against products with what the codes stand for.
#include "code_checks.h"
#include "ops/cuda/backend.h"
#include "ops/cuda/codes.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

using cuda::CodesPath;

class CudaCodes : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << cuda_problem();
  }
};

void check_path(const CodedMatrix& w, int64_t m, DType dtype, bool transposed, double tolerance, CodesPath path) {
  if (!serves(path, w.weight().view(), dtype, transposed)) return;
  SCOPED_TRACE(fmt::format("{}, {} tokens, {}{}", name_of(path), m, name_of(dtype), transposed ? ", transposed" : ""));
  check_product(cuda_kernels(), w, m, dtype, transposed, tolerance,
                [&](const CodeMatmulArgs& args) { cuda::matmul_codes_by(path, args); });
}

constexpr double kFloat = 1e-6;  // of the sum of magnitudes: some roundings of 6e-8
constexpr CodesPath kPaths[] = {CodesPath::tables, CodesPath::dots, CodesPath::tiles};

TEST_F(CudaCodes, EveryWay) {
  for (const CodeCase& c : code_cases()) {
    SCOPED_TRACE(c.text());
    const CodedMatrix w(c, cuda_kernels());
    for (const CodesPath path : kPaths)
      for (const bool transposed : {false, true}) {
        check_path(w, 1, DType::f32, transposed, kFloat, path);
        check_path(w, 3, DType::bf16, transposed, 0.01, path);
      }
  }
}

// Every size of a group of tokens, and more than one; every block length of tables; parts of sums and without.
TEST_F(CudaCodes, GroupsOfTokens) {
  for (const CodeCase& c :
       {CodeCase{.rows = 270, .cols = 640, .block = 8, .levels = 256, .scales = true},
        CodeCase{.rows = 131, .cols = 64, .block = 4, .levels = 100},
        CodeCase{.rows = 90, .cols = 160, .block = 16, .levels = 256},
        CodeCase{.rows = 131, .cols = 90, .block = 9, .levels = 256},
        CodeCase{.rows = 140, .cols = 64, .block = 8, .levels = 1000},
        CodeCase{.rows = 140, .cols = 64, .block = 8, .levels = 4096},
        CodeCase{.rows = 19, .cols = 2056, .bits = 4, .scales = true}, CodeCase{.rows = 19, .cols = 1032, .bits = 8},
        CodeCase{.rows = 19, .cols = 77, .bits = 3, .scales = true}}) {
    SCOPED_TRACE(c.text());
    const CodedMatrix w(c, cuda_kernels());
    for (const int64_t m : {2, 4, 5, 8, 9, 17})
      for (const CodesPath path : kPaths)
        for (const bool transposed : {false, true}) check_path(w, m, DType::f32, transposed, kFloat, path);
    check_path(w, 6, DType::f16, false, 0.002, cuda::path_of(w.weight().view(), 6, DType::f16, false));
  }
}

// So many rows that tiles are several, and that few threads share tables.
TEST_F(CudaCodes, LargeMatrices) {
  const CodedMatrix w({.rows = 9000, .cols = 1024, .block = 8, .levels = 256}, cuda_kernels());
  ASSERT_EQ(cuda::rows_of_tables(w.weight().view(), 1), 1024);
  ASSERT_EQ(cuda::rows_of_tables(
                CodedMatrix({.rows = 64, .cols = 64, .block = 8, .levels = 256}, cuda_kernels()).weight().view(), 1),
            256);
  for (const CodesPath path : kPaths) check_path(w, 1, DType::f32, false, kFloat, path);
  check_path(w, 2, DType::f32, true, 2e-6, CodesPath::tiles);
}

TEST_F(CudaCodes, ShapesThatDoNotFitAreRefused) { check_refusals(cuda_kernels()); }

TEST_F(CudaCodes, TheSameEveryTime) {
  const CodedMatrix w({.rows = 700, .cols = 1024, .block = 8, .levels = 256}, cuda_kernels());
  const OwnedTensor x({1, 1024}, DType::f32, *cuda_kernels().memory), y({1, 700}, DType::f32, *cuda_kernels().memory);
  const std::vector<float> values = random_floats(1024, 3);
  from_doubles(cuda_kernels(), x.view(), {values.begin(), values.end()});
  const auto product = [&] {
    cuda_kernels().fill(y.view(), 7.0);
    cuda_kernels().matmul_codes({.weight = w.weight().view(), .x = x.view(), .y = y.view()});
    return to_doubles(cuda_kernels(), y.view());
  };
  const std::vector<double> first = product();
  for (int i = 0; i < 5; ++i) ASSERT_EQ(product(), first);
}

TEST_F(CudaCodes, FewTokensAreNotDecoded) {
  const CodedMatrix blocks({.rows = 2048, .cols = 512, .block = 8, .levels = 256}, cuda_kernels());
  const CodedMatrix many({.rows = 512, .cols = 512, .block = 8, .levels = 4096}, cuda_kernels());
  const CodedMatrix grid({.rows = 512, .cols = 512, .bits = 4}, cuda_kernels());
  for (const int64_t m : {1, 2, 8}) {
    EXPECT_EQ(cuda::path_of(blocks.weight().view(), m, DType::bf16, false),
              m < 8 ? CodesPath::tables : CodesPath::dots);
    EXPECT_EQ(cuda::path_of(many.weight().view(), m, DType::bf16, false), CodesPath::dots);
    EXPECT_EQ(cuda::path_of(grid.weight().view(), m, DType::bf16, false), CodesPath::dots);
    EXPECT_EQ(cuda::path_of(blocks.weight().view(), m, DType::f64, false), CodesPath::tiles);
  }
  const CodedMatrix tiny({.rows = 4, .cols = 8, .block = 8, .levels = 4}, cuda_kernels());
  EXPECT_EQ(cuda::path_of(tiny.weight().view(), 1'000'000, DType::bf16, false), CodesPath::tiles);
  for (const CodedMatrix* w : {&blocks, &many, &grid})
    EXPECT_EQ(cuda::path_of(w->weight().view(), 1000, DType::bf16, false), CodesPath::tiles);
}

TEST_F(CudaCodes, RowsAreLookedUpAndDecoded) {
  const Kernels& kernels = cuda_kernels();
  for (const CodeCase& c : code_cases()) {
    SCOPED_TRACE(c.text());
    const CodedMatrix w(c, kernels);
    for (const DType dtype : {DType::f32, DType::f64, DType::bf16}) {
      const double tolerance = dtype == DType::bf16 ? 0.01 : dtype == DType::f32 ? 1e-6 : 1e-15;
      const OwnedTensor dense({c.rows, c.cols}, dtype, *kernels.memory);
      kernels.decode_codes(dense.view(), w.weight().view());
      EXPECT_TRUE(close(to_doubles(kernels, dense.view()), w.dense(), tolerance));
      const std::vector<int32_t> ids{static_cast<int32_t>(c.rows - 1), -1, 0, static_cast<int32_t>(c.rows / 2)};
      const Buffer placed(ids.size() * sizeof(int32_t), *kernels.memory);
      kernels.upload(placed.data(), ids.data(), placed.size());
      const OwnedTensor rows({4, c.cols}, dtype, *kernels.memory);
      kernels.fill(rows.view(), 3.0);
      kernels.lookup_codes(rows.view(), w.weight().view(), reinterpret_cast<const int32_t*>(placed.data()), 0.5);
      std::vector<double> wanted;
      for (const int32_t id : ids)
        for (int64_t l = 0; l < c.cols; ++l)
          wanted.push_back(id < 0 ? 0.0 : 0.5 * w.dense()[static_cast<size_t>(id * c.cols + l)]);
      EXPECT_TRUE(close(to_doubles(kernels, rows.view()), wanted, tolerance));
    }
  }
}

}  // namespace
}  // namespace qn::test
