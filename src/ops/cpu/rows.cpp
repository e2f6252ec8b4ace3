#include <algorithm>
#include <vector>

#include "ops/cpu/cpu_kernels.h"
#include "ops/cpu/parallel.h"

namespace qn::cpu {

void gather_rows(const Tensor& y, const Tensor& table, const int32_t* ids, double scale) {
  dispatch_pair(y.dtype, table.dtype, [&](auto y_tag, auto table_tag) {
    using Y = decltype(y_tag);
    using X = decltype(table_tag);
    const int64_t d = y.cols();
    const X* from = table.as<X>();
    Y* to = y.as<Y>();
    const auto s = static_cast<ParameterOf<Y>>(scale);
    parallel_rows(y.rows(), d, [=](int64_t r) {
      Y* out = to + r * d;
      if (ids[r] < 0) {
        std::fill_n(out, d, Y{});
        return;
      }
      const X* in = from + ids[r] * d;
      for (int64_t c = 0; c < d; ++c) out[c] = static_cast<Y>(s * in[c]);
    });
  });
}

void scatter_add_rows(const Tensor& table, const Tensor& x, const int32_t* ids, double scale, int32_t skip_id) {
  dispatch_pair(table.dtype, x.dtype, [&](auto table_tag, auto x_tag) {
    using Y = decltype(table_tag);
    using X = decltype(x_tag);
    const int64_t d = x.cols(), rows = x.rows();
    Y* to = table.as<Y>();
    const X* from = x.as<X>();
    const auto s = static_cast<ParameterOf<Y>>(scale);
    // Ids repeat, so threads split the columns: every element is summed by one thread, in row order.
    constexpr int64_t kStripe = 64;
    const int64_t stripes = (d + kStripe - 1) / kStripe;
#pragma omp parallel for schedule(static) if (rows * d > 16384 && stripes > 1)
    for (int64_t stripe = 0; stripe < stripes; ++stripe) {
      const int64_t begin = stripe * kStripe, end = std::min(d, begin + kStripe);
      for (int64_t r = 0; r < rows; ++r) {
        if (ids[r] == skip_id || ids[r] < 0) continue;
        Y* out = to + ids[r] * d;
        const X* in = from + r * d;
        for (int64_t c = begin; c < end; ++c) out[c] = static_cast<Y>(out[c] + s * in[c]);
      }
    }
  });
}

void scatter_rows(const Tensor& y, const Tensor& x, const int32_t* rows, double scale) {
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t d = x.cols();
    T* to = y.as<T>();
    const T* from = x.as<T>();
    const auto s = static_cast<ParameterOf<T>>(scale);
    parallel_rows(x.rows(), d, [=](int64_t r) {
      if (rows[r] < 0) return;
      T* out = to + rows[r] * d;
      const T* in = from + r * d;
      for (int64_t c = 0; c < d; ++c) out[c] = static_cast<T>(s * in[c]);
    });
  });
}

}  // namespace qn::cpu
