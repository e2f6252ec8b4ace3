// What the cases of kernels_bench are written with: the model they belong to, the kernels under measurement, their
// tensors, the clock.
#pragma once

#include <benchmark/benchmark.h>

#include <array>
#include <chrono>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "bench/limits.h"
#include "bench/synthetic.h"
#include "ops/kernels.h"

namespace qn::bench {

// Google Benchmark calls functions without context.
inline const Kernels* g_kernels = &cpu_kernels();
inline DType g_dtype = DType::f32;  // of activations
inline Limits g_limits;

inline const Kernels& k() { return *g_kernels; }
inline bool on_gpu() { return g_kernels->memory != &host_memory(); }

/// One model's micro-batch.
struct Model {
  std::string name;
  int64_t batch, time, width, ffn, heads;
  int64_t parameters;
  // Bands of factor 4: their words (here WikiText-2's 33280), and the share of positions that falls into each.
  std::array<int64_t, 3> words{2000, 8000, 23280};
  std::array<double, 3> share{0.75, 0.15, 0.10};

  int64_t positions() const { return batch * time; }
  int64_t band_words(int band) const { return words[static_cast<size_t>(band)]; }
  int64_t dim(int band) const { return width >> (2 * band); }
  /// Of the head's logits in memory: words and two clusters. See logit_columns() of ops/ops.h.
  int64_t head_columns() const { return on_gpu() ? (words[0] + 2 + 63) / 64 * 64 : words[0] + 2; }
  int64_t rows(int band) const {
    return static_cast<int64_t>(share[static_cast<size_t>(band)] * static_cast<double>(positions()));
  }
};

/// A tensor of normal numbers: of activations, or of parameters and what goes with them.
inline OwnedTensor random_tensor(Shape shape) { return bench::random_tensor(k(), shape, g_dtype); }
inline OwnedTensor random_parameter(Shape shape) { return bench::random_tensor(k(), shape, parameter_type(g_dtype)); }
/// The same, for results.
inline OwnedTensor empty_tensor(Shape shape) { return {shape, g_dtype, *k().memory}; }
inline OwnedTensor empty_parameter(Shape shape) { return {shape, parameter_type(g_dtype), *k().memory}; }

/// Numbers where the kernels read them.
template <typename V>
class OnDevice {
 public:
  explicit OnDevice(const std::vector<V>& values) : buffer_(values.size() * sizeof(V), *k().memory) {
    k().upload(buffer_.data(), values.data(), bytes());
  }
  V* data() const { return reinterpret_cast<V*>(buffer_.data()); }
  size_t bytes() const { return buffer_.size(); }

 private:
  Buffer buffer_;
};

/// Row numbers of a table, small ones often.
inline OnDevice<int32_t> ids_below(int64_t count, int64_t range) {
  return OnDevice<int32_t>(zipf_tokens(count, range, 1));
}

/// Seconds of one call. A GPU gets several at a time, so that it does not wait for the host.
template <typename Call>
double seconds_of(Call& call) {
  const int calls = on_gpu() ? 20 : 1;
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < calls; ++i) call();
  if (on_gpu()) wait_for(k());
  benchmark::ClobberMemory();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / calls;
}

/// Runs `call` and sets the counters. `flops` 0: a kernel that moves `bytes`.
template <typename Call>
void measure(benchmark::State& state, double flops, size_t bytes, Call call) {
  double seconds = 0.0;
  call();
  wait_for(k());
  for (auto _ : state) {
    const double one = seconds_of(call);
    state.SetIterationTime(one);
    seconds += one;
  }
  const double amount = flops > 0.0 ? flops : static_cast<double>(bytes);
  const double rate = amount * static_cast<double>(state.iterations()) / seconds * 1e-9;
  state.counters[flops > 0.0 ? "GFLOP/s" : "GB/s"] = rate;
  state.counters["share"] = rate / (flops > 0.0 ? g_limits.matmul_gflops : g_limits.copy_gbps(bytes));
}

using Body = std::function<void(benchmark::State&)>;

/// Registers a case under NAME/MODEL.
inline void add(const Model& model, const std::string& name, Body body) {
  auto* const registered = benchmark::RegisterBenchmark(
      (name + "/" + model.name).c_str(), [body = std::move(body)](benchmark::State& state) { body(state); });
  registered->UseManualTime()->Unit(benchmark::kMicrosecond);
  if (on_gpu()) registered->Iterations(5);  // of many calls each: to look for a number would repeat the large set-ups
}

/// int8_cases.cpp: matmul_int8 beside the products of the activations' type.
void add_int8(const Model& m);

}  // namespace qn::bench
