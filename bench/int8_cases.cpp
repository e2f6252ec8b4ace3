// Matrix products in integers beside those of the activations' type.
#include <ctime>

#include "bench/kernel_cases.h"
#include "ops/int8_weight.h"
#include "ops/work.h"

namespace qn::bench {
namespace {

/// A weight of random 8-bit codes with a grid per row.
Int8Weight random_int8_weight(int64_t rows, int64_t cols) {
  std::vector<uint8_t> codes(static_cast<size_t>(rows * cols));
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i * 2654435761U >> 7);
  const OnDevice on_device(codes);
  const OnDevice scales(std::vector<float>(static_cast<size_t>(rows), 0.01f)),
      zero_points(std::vector<float>(static_cast<size_t>(rows), 128.0f));
  return {k(), view_of(on_device.data(), {rows, cols}), view_of(scales.data(), {rows}),
          view_of(zero_points.data(), {rows})};
}

double thread_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// seconds_of() in processor time where one thread does all the work: what else runs on the machine disturbs less.
template <typename Call>
double own_seconds_of(Call& call) {
  if (on_gpu() || g_limits.threads > 1) return seconds_of(call);
  const double start = thread_seconds();
  call();
  benchmark::ClobberMemory();
  return thread_seconds() - start;
}

/// The product of a linear layer in integers beside the one of the activations' type: calls take turns, each counter is
/// that of the fastest call, and `speedup` their ratio. Quantizing x is part of the former.
void add_int8_product(const Model& m, const std::string& layer, int64_t rows, int64_t in, int64_t out) {
  add(m, fmt::format("matmul_int8/{}_{}x{}x{}", layer, rows, out, in), [=](benchmark::State& state) {
    const OwnedTensor x = random_tensor({rows, in}), w = random_tensor({out, in}), y = empty_tensor({rows, out});
    const MatmulArgs plain{.dtype = g_dtype,
                           .dtype_c = g_dtype,
                           .transpose_b = true,
                           .m = rows,
                           .n = out,
                           .k = in,
                           .a = x.view().data,
                           .lda = in,
                           .b = w.view().data,
                           .ldb = in,
                           .c = y.view().data,
                           .ldc = out};
    const Int8Weight weight = random_int8_weight(out, in);
    const OnDevice grid(std::vector<float>{0.03f, 128.0f});
    Int8MatmulArgs integers = weight.product();
    integers.x = x.view();
    integers.grid = {.bits = 8, .scale = grid.data(), .zero_point = grid.data() + 1};
    integers.y = y.view();
    const auto first = [&] { k().matmul(plain); };
    const auto second = [&] { k().matmul_int8(integers); };
    first(), second();
    wait_for(k());
    double plain_seconds = 1e30, int8_seconds = 1e30;
    for (auto _ : state) {
      plain_seconds = std::min(plain_seconds, own_seconds_of(first));
      const double one = own_seconds_of(second);
      int8_seconds = std::min(int8_seconds, one);
      state.SetIterationTime(one);
    }
    const double operations = matmul_work(plain).flops * 1e-9;
    state.counters["GOP/s"] = operations / int8_seconds;
    state.counters[fmt::format("{} GFLOP/s", name_of(g_dtype))] = operations / plain_seconds;
    state.counters["speedup"] = plain_seconds / int8_seconds;
  });
}

}  // namespace

void add_int8(const Model& m) {
  add_int8_product(m, "attention", m.positions(), m.width, m.width);
  add_int8_product(m, "fc1", m.positions(), m.width, m.ffn);
  add_int8_product(m, "fc2", m.positions(), m.ffn, m.width);
  for (const int64_t rows : {1, 2, 4, 8, 64}) add_int8_product(m, "few_rows", rows, m.ffn, m.ffn);
}

}  // namespace qn::bench
