#include "ops/cpu/matmul_bf16.h"

#include <map>
#include <unordered_map>
#include <vector>

#include "core/cpu_features.h"
#include "ops/cpu/gemm.h"
#include "ops/cpu/onednn.h"
#include "ops/cpu/parallel.h"
#include "ops/cpu/scratch.h"

namespace qn::cpu {
namespace {

/// What a primitive is made for.
struct Problem {
  bool transpose_a, transpose_b, narrow_c;
  int beta;
  int64_t m, n, k, lda, ldb, ldc;
  auto operator<=>(const Problem&) const = default;
};

/// A primitive with its arguments' places; only the addresses change from call to call.
struct Product {
  dnnl::matmul primitive;
  dnnl::memory a, b, c, scratchpad;
  std::unordered_map<int, dnnl::memory> arguments;
  size_t scratch_bytes = 0;
};

dnnl::memory::desc matrix(int64_t rows, int64_t cols, dnnl::memory::data_type type, int64_t ld, bool transposed) {
  const dnnl::memory::dims strides = transposed ? dnnl::memory::dims{1, ld} : dnnl::memory::dims{ld, 1};
  return {{rows, cols}, type, strides};
}

Product make_product(const Problem& p) {
  using Type = dnnl::memory::data_type;
  const auto a = matrix(p.m, p.k, Type::bf16, p.lda, p.transpose_a);
  const auto b = matrix(p.k, p.n, Type::bf16, p.ldb, p.transpose_b);
  const auto c = matrix(p.m, p.n, p.narrow_c ? Type::bf16 : Type::f32, p.ldc, false);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (p.beta != 0) {
    dnnl::post_ops add;
    add.append_sum(1.0f);
    attributes.set_post_ops(add);
  }
  const dnnl::matmul::primitive_desc description({a, b, c}, attributes, onednn_engine());
  Product product{dnnl::matmul(description),
                  placeless(a),
                  placeless(b),
                  placeless(c),
                  placeless(description.scratchpad_desc()),
                  {},
                  description.scratchpad_desc().get_size()};
  product.arguments = {{DNNL_ARG_SRC, product.a},
                       {DNNL_ARG_WEIGHTS, product.b},
                       {DNNL_ARG_DST, product.c},
                       {DNNL_ARG_SCRATCHPAD, product.scratchpad}};
  return product;
}

/// The calling thread's primitive for a problem. Most shapes of a training come back in every micro-batch; those that
/// depend on the data (rows of a frequency band) must not pile up.
Product& product_for(const Problem& problem) {
  constexpr size_t kMost = 1024;
  static thread_local std::map<Problem, Product> made;
  const auto found = made.find(problem);
  if (found != made.end()) return found->second;
  if (made.size() >= kMost) made.clear();
  return made.emplace(problem, make_product(problem)).first->second;
}

/// A float copy without gaps between its rows.
const float* widened(const void* data, int64_t rows, int64_t cols, int64_t ld, std::vector<float>& scratch) {
  const auto* from = static_cast<const bfloat16*>(data);
  float* to = at_least(scratch, rows * cols);
  parallel_rows(rows, cols, [=](int64_t r) {
    for (int64_t c = 0; c < cols; ++c) to[r * cols + c] = from[r * ld + c];
  });
  return to;
}

}  // namespace

void matmul_bf16_native(const MatmulArgs& args) {
  static thread_local std::vector<std::byte> scratch;
  Product& product = product_for({args.transpose_a, args.transpose_b, args.dtype_c == DType::bf16, args.beta, args.m,
                                  args.n, args.k, args.lda, args.ldb, args.ldc});
  product.a.set_data_handle(const_cast<void*>(args.a));
  product.b.set_data_handle(const_cast<void*>(args.b));
  product.c.set_data_handle(args.c);
  product.scratchpad.set_data_handle(at_least(scratch, static_cast<int64_t>(product.scratch_bytes)));
  product.primitive.execute(onednn_stream(), product.arguments);
  onednn_stream().wait();
}

void matmul_bf16_converted(const MatmulArgs& args) {
  static thread_local std::vector<float> a_copy, b_copy, product;
  const int64_t m = args.m, n = args.n, k = args.k;
  const auto copy = [](bool transposed, const void* data, int64_t rows, int64_t cols, int64_t ld,
                       std::vector<float>& to) {
    return transposed ? widened(data, cols, rows, ld, to) : widened(data, rows, cols, ld, to);
  };
  const float* a = copy(args.transpose_a, args.a, m, k, args.lda, a_copy);
  const float* b = copy(args.transpose_b, args.b, k, n, args.ldb, b_copy);
  const int64_t lda = args.transpose_a ? m : k, ldb = args.transpose_b ? k : n;
  if (args.dtype_c == DType::f32) {
    gemm(args.transpose_a, args.transpose_b, m, n, k, 1.0f, a, lda, b, ldb, static_cast<float>(args.beta),
         static_cast<float*>(args.c), args.ldc);
    return;
  }
  float* sums = at_least(product, m * n);
  gemm(args.transpose_a, args.transpose_b, m, n, k, 1.0f, a, lda, b, ldb, 0.0f, sums, n);
  auto* c = static_cast<bfloat16*>(args.c);
  parallel_rows(m, n, [=, ldc = args.ldc, add = args.beta != 0](int64_t r) {
    for (int64_t j = 0; j < n; ++j) {
      bfloat16& out = c[r * ldc + j];
      out = bfloat16(sums[r * n + j] + (add ? static_cast<float>(out) : 0.0f));
    }
  });
}

void matmul_bf16(const MatmulArgs& args) {
  QN_ASSERT(args.dtype_c == DType::bf16 || args.dtype_c == DType::f32);
  QN_ASSERT(args.alpha == 1.0);
  if (cpu_multiplies_bf16())
    matmul_bf16_native(args);
  else
    matmul_bf16_converted(args);
}

}  // namespace qn::cpu
