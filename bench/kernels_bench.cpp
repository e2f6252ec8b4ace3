// Every kernel of a backend's table on the shapes of real training steps. Beside the time each line gives what was
// achieved (GFLOP/s or GB/s) and its share of what this machine can do, measured in the same run: matrix products and
// attention against the best matrix product, everything else against copying a working set of the same size.
#include <benchmark/benchmark.h>
#include <omp.h>

#include <algorithm>
#include <array>
#include <iostream>
#include <numeric>
#include <string>

#include "bench/kernel_cases.h"
#include "bench/program.h"
#include "cli/choice_option.h"
#include "ops/cpu/int8_variants.h"
#include "ops/work.h"
#include "train/device.h"

namespace {

using namespace qn;
using namespace qn::bench;

const std::vector<Model>& models() {
  static const std::vector<Model> list{
      {.name = "small", .batch = 2, .time = 512, .width = 256, .ffn = 1024, .heads = 4, .parameters = 6'221'568},
      {.name = "large", .batch = 2, .time = 1024, .width = 512, .ffn = 2048, .heads = 8, .parameters = 22'052'352}};
  return list;
}

/// configs/wikitext103.yaml; too large for the CPU.
const Model& gpu_model() {
  static const Model model{.name = "wikitext103",
                           .batch = 1,
                           .time = 3072,
                           .width = 1024,
                           .ffn = 4096,
                           .heads = 8,
                           .parameters = 246'933'504,
                           .words = {20000, 40000, 207744}};  // padded as dictionaries are
  return model;
}

/// A kernel over activations: `tensors` is how many of so many elements it reads and writes.
size_t traffic(int64_t elements, double tensors) {
  return static_cast<size_t>(static_cast<double>(elements) * static_cast<double>(size_of(g_dtype)) * tensors);
}
/// The same for parameters.
size_t parameter_traffic(int64_t elements, double tensors) {
  return static_cast<size_t>(static_cast<double>(elements) * static_cast<double>(size_of(parameter_type(g_dtype))) *
                             tensors);
}

/// A linear layer's three products: y = x W^T, dx = dy W, dW += dy^T x. Rows of y and dy may have room behind them.
void add_linear(const Model& m, const std::string& layer, int64_t rows, int64_t in, int64_t out, int64_t room = 0) {
  const auto product = [&](const char* pass, MatmulArgs args) {
    args.lda = std::max(args.lda, args.transpose_a ? args.m : args.k);
    args.ldb = args.transpose_b ? args.k : args.n;
    args.ldc = std::max(args.ldc, args.n);
    add(m, fmt::format("matmul/{}/{}_{}x{}x{}", layer, pass, args.m, args.n, args.k), [args](benchmark::State& state) {
      MatmulArgs full = args;
      full.dtype = g_dtype;
      full.dtype_c = args.beta == 1 ? parameter_type(g_dtype) : g_dtype;  // gradients of weights collect in fp32
      const OwnedTensor a = random_tensor({args.transpose_a ? args.k : args.m, args.lda}),
                        b = random_tensor({args.k, args.n}), c({args.m, args.ldc}, full.dtype_c, *k().memory);
      full.a = a.view().data;
      full.b = b.view().data;
      full.c = c.view().data;
      measure(state, matmul_work(full).flops, 0, [&] { k().matmul(full); });
    });
  };
  product("forward", {.transpose_b = true, .m = rows, .n = out, .k = in, .ldc = out + room});
  product("grad_x", {.m = rows, .n = in, .k = out, .lda = out + room});
  product("grad_w", {.transpose_a = true, .m = out, .n = in, .k = rows, .lda = out + room, .beta = 1});
}

void add_matmuls(const Model& m) {
  add_linear(m, "attention", m.positions(), m.width, m.width);
  add_linear(m, "fc1", m.positions(), m.width, m.ffn);
  add_linear(m, "fc2", m.positions(), m.ffn, m.width);
  add_linear(m, "head_words", m.positions(), m.width, m.band_words(0), m.head_columns() - m.band_words(0));
  add_linear(m, "head_clusters", m.positions(), m.width, 2, m.head_columns() - 2);
  for (int band = 0; band < 3; ++band)
    add_linear(m, fmt::format("input_projection{}", band), m.rows(band), m.dim(band), m.width);
  for (int band = 1; band < 3; ++band)
    add_linear(m, fmt::format("tail_words{}", band), m.rows(band), m.dim(band), m.band_words(band));
}

void add_copies(const Model& m) {
  const Shape shape{m.positions(), m.width};
  const int64_t n = shape.elements();
  add(m, "fill", [=](benchmark::State& state) {
    const OwnedTensor y = empty_tensor(shape);
    measure(state, 0.0, traffic(n, 1), [&] { k().fill(y.view(), 0.5); });
  });
  add(m, "copy", [=](benchmark::State& state) {
    const OwnedTensor x = random_tensor(shape), y = empty_tensor(shape);
    measure(state, 0.0, traffic(n, 2), [&] { k().copy(y.view(), x.view()); });
  });
  for (const int beta : {0, 1})
    add(m, fmt::format("axpy/beta{}", beta), [=](benchmark::State& state) {
      const OwnedTensor x = random_tensor(shape), y = empty_tensor(shape);
      measure(state, 0.0, traffic(n, 2 + beta), [&] { k().axpy(y.view(), x.view(), 0.5, beta); });
    });
  for (const int64_t cols : {m.width, m.ffn}) {
    const int64_t elements = m.positions() * cols;
    add(m, fmt::format("add_bias/{}", cols), [=](benchmark::State& state) {
      const OwnedTensor y = empty_tensor({m.positions(), cols}), bias = random_parameter({cols});
      measure(state, 0.0, traffic(elements, 2), [&] { k().add_bias(y.view(), 0, bias.view()); });
    });
    add(m, fmt::format("bias_grad/{}", cols), [=](benchmark::State& state) {
      const OwnedTensor dy = random_tensor({m.positions(), cols}), bias = empty_parameter({cols});
      measure(state, 0.0, traffic(elements, 1), [&] { k().bias_grad(bias.view(), dy.view(), 0, 1); });
    });
  }
}

void add_norms(const Model& m) {
  const Shape shape{m.positions(), m.width};
  const auto inputs = [=] {
    return std::array{random_tensor(shape), random_parameter({m.width}),      random_parameter({m.width}),
                      empty_tensor(shape),  empty_parameter({m.positions()}), empty_parameter({m.positions()})};
  };
  add(m, "layer_norm", [=](benchmark::State& state) {
    const auto [x, weight, bias, y, mean, rstd] = inputs();
    measure(state, 0.0, traffic(shape.elements(), 2),
            [&] { k().layer_norm(y.view(), mean.view(), rstd.view(), x.view(), weight.view(), bias.view(), 1e-5); });
  });
  add(m, "layer_norm_grad", [=](benchmark::State& state) {
    const auto [x, weight, bias, y, mean, rstd] = inputs();
    k().layer_norm(y.view(), mean.view(), rstd.view(), x.view(), weight.view(), bias.view(), 1e-5);
    const OwnedTensor dy = random_tensor(shape), dx = empty_tensor(shape), dw = empty_parameter({m.width}),
                      db = empty_parameter({m.width});
    measure(state, 0.0, traffic(shape.elements(), 3), [&] {
      k().layer_norm_grad(dx.view(), 0, dw.view(), 1, db.view(), 1, dy.view(), x.view(), mean.view(), rstd.view(),
                          weight.view());
    });
  });
}

void add_dropout(const Model& m) {
  const Shape shape{m.positions(), m.width}, hidden{m.positions(), m.ffn};
  const auto bits_of = [](int64_t n) {
    OnDevice<uint64_t> bits(std::vector<uint64_t>(static_cast<size_t>(keep_words(n))));
    k().keep_bits(bits.data(), n, 0.1, {});
    return bits;
  };
  add(m, "keep_bits", [=](benchmark::State& state) {
    const auto bits = bits_of(shape.elements());
    // Nothing is read: bound by the random numbers, not by memory.
    measure(state, 0.0, bits.bytes(), [&] { k().keep_bits(bits.data(), shape.elements(), 0.1, {}); });
    state.SetItemsProcessed(state.iterations() * shape.elements());
  });
  add(m, "masked_axpy", [=](benchmark::State& state) {
    const OwnedTensor x = random_tensor(shape), y = empty_tensor(shape);
    const auto bits = bits_of(shape.elements());
    measure(state, 0.0, traffic(shape.elements(), 2) + bits.bytes(),
            [&] { k().masked_axpy(y.view(), x.view(), bits.data(), 1.1, 0); });
  });
  add(m, "residual_add", [=](benchmark::State& state) {
    const OwnedTensor x = random_tensor(shape), residual = random_tensor(shape), bias = random_parameter({m.width}),
                      y = empty_tensor(shape);
    const auto bits = bits_of(shape.elements());
    measure(state, 0.0, traffic(shape.elements(), 3) + bits.bytes(),
            [&] { k().residual_add(y.view(), residual.view(), x.view(), bias.view(), bits.data(), 1.1); });
  });
  for (const auto& [name, kind] : {std::pair{"relu", Activation::relu}, {"gelu", Activation::gelu}}) {
    add(m, fmt::format("activation/{}", name), [=, act = kind](benchmark::State& state) {
      const OwnedTensor x = random_tensor(hidden), bias = random_parameter({m.ffn}), y = empty_tensor(hidden);
      measure(state, 0.0, traffic(hidden.elements(), 2),
              [&] { k().activation(y.view(), x.view(), bias.view(), act, nullptr, 1.0); });
    });
    add(m, fmt::format("activation_grad/{}", name), [=, act = kind](benchmark::State& state) {
      const OwnedTensor x = random_tensor(hidden), bias = random_parameter({m.ffn}), dy = random_tensor(hidden),
                        dx = empty_tensor(hidden);
      measure(state, 0.0, traffic(hidden.elements(), 3),
              [&] { k().activation_grad(dx.view(), dy.view(), x.view(), bias.view(), act, nullptr, 1.0); });
    });
  }
}

void add_rows(const Model& m) {
  for (int band = 0; band < 3; ++band) {
    const int64_t rows = m.rows(band), dim = m.dim(band), words = m.band_words(band);
    add(m, fmt::format("gather_rows/band{}", band), [=](benchmark::State& state) {
      const OwnedTensor table = random_parameter({words, dim}), y = empty_tensor({rows, dim});
      const auto ids = ids_below(rows, words);
      measure(state, 0.0, traffic(rows * dim, 2), [&] { k().gather_rows(y.view(), table.view(), ids.data(), 1.0); });
    });
    add(m, fmt::format("scatter_add_rows/band{}", band), [=](benchmark::State& state) {
      const OwnedTensor table = empty_parameter({words, dim}), x = random_tensor({rows, dim});
      const auto ids = ids_below(rows, words);
      measure(state, 0.0, traffic(rows * dim, 3),
              [&] { k().scatter_add_rows(table.view(), x.view(), ids.data(), 1.0, 1); });
    });
  }
  add(m, "scatter_rows", [=](benchmark::State& state) {
    const OwnedTensor x = random_tensor({m.rows(0), m.width}), y = empty_tensor({m.positions(), m.width});
    std::vector<int32_t> first(static_cast<size_t>(m.rows(0)));
    std::iota(first.begin(), first.end(), 0);
    const OnDevice rows(first);
    measure(state, 0.0, traffic(x.view().elements(), 2),
            [&] { k().scatter_rows(y.view(), x.view(), rows.data(), 16.0); });
  });
}

void add_attention(const Model& m) {
  for (const double dropout : {0.0, 0.1}) {
    AttentionArgs args = self_attention(m.batch, m.time, m.heads, m.width / m.heads, true);
    args.dropout = dropout;
    const Shape shape{m.positions(), m.width};
    const int64_t lse_size = m.batch * m.heads * m.time;
    add(m, fmt::format("attention/dropout{}", dropout), [=](benchmark::State& state) {
      const OwnedTensor qkv = random_tensor({m.positions(), 3 * m.width}), out = empty_tensor(shape),
                        lse = empty_parameter({lse_size});
      measure(state, attention_work(args).flops, 0,
              [&] { k().attention(out.view(), lse.view(), qkv.view(), qkv.view(), args); });
    });
    add(m, fmt::format("attention_grad/dropout{}", dropout), [=](benchmark::State& state) {
      const OwnedTensor qkv = random_tensor({m.positions(), 3 * m.width}), out = empty_tensor(shape),
                        lse = empty_parameter({lse_size}), dout = random_tensor(shape),
                        dqkv = empty_tensor(qkv.view().shape);
      k().attention(out.view(), lse.view(), qkv.view(), qkv.view(), args);
      measure(state, attention_grad_work(args).flops, 0, [&] {
        k().attention_grad(dqkv.view(), dqkv.view(), dout.view(), out.view(), lse.view(), qkv.view(), qkv.view(), args);
      });
    });
  }
}

void add_losses(const Model& m) {
  const auto add_band = [&](const std::string& name, int64_t rows, int64_t words, int64_t columns) {
    for (const bool grad : {false, true})
      add(m, fmt::format("cross_entropy/{}{}", name, grad ? "_grad" : ""), [=](benchmark::State& state) {
        const OwnedTensor logits = random_tensor({rows, columns}), losses({rows}, DType::f64, *k().memory);
        const auto targets = ids_below(rows, words);
        measure(state, 0.0, traffic(rows * words, grad ? 2 : 1), [&] {
          k().cross_entropy(losses.view(), logits.view(), words, targets.data(), nullptr, 0.0, grad, nullptr);
        });
      });
  };
  add_band("head", m.positions(), m.band_words(0) + 2, m.head_columns());
  add_band("tail1", m.rows(1), m.band_words(1), m.band_words(1));
  add_band("tail2", m.rows(2), m.band_words(2), m.band_words(2));
  add(m, "log_softmax", [=](benchmark::State& state) {
    const Shape shape{m.positions(), m.band_words(0) + 2};
    const OwnedTensor x = random_tensor(shape), y = empty_tensor(shape);
    measure(state, 0.0, traffic(shape.elements(), 2), [&] { k().log_softmax(y.view(), x.view()); });
  });
}

void add_weights(const Model& m) {
  const Shape shape{m.ffn, m.width};
  const int64_t blocks = shape.elements() / 8, centroids = 256;
  const auto codes = [=] {
    std::vector<uint16_t> result(static_cast<size_t>(blocks));
    for (size_t i = 0; i < result.size(); ++i) result[i] = static_cast<uint16_t>(i * 2654435761U >> 7) % centroids;
    return result;
  };
  add(m, "block_noise", [=](benchmark::State& state) {
    const OwnedTensor w = random_parameter(shape), y = empty_tensor(shape);
    measure(state, 0.0, traffic(shape.elements(), 1) + parameter_traffic(shape.elements(), 1),
            [&] { k().block_noise(y.view(), w.view(), 8, 0.1, {}); });
  });
  add(m, "pq_decode", [=](benchmark::State& state) {
    const OwnedTensor w = empty_tensor(shape), table = random_parameter({centroids, 8});
    const OnDevice c(codes());
    measure(state, 0.0, traffic(shape.elements(), 1) + c.bytes(),
            [&] { k().pq_decode(w.view(), table.view(), c.data()); });
  });
  add(m, "pq_centroid_grad", [=](benchmark::State& state) {
    const OwnedTensor dw = random_parameter(shape), dtable = empty_parameter({centroids, 8});
    const OnDevice c(codes());
    measure(state, 0.0, parameter_traffic(shape.elements(), 1) + c.bytes(),
            [&] { k().pq_centroid_grad(dtable.view(), dw.view(), c.data(), nullptr, 1); });
  });
}

void add_optimizers(const Model& m) {
  const int64_t n = m.parameters;
  add(m, "sum_of_squares", [=](benchmark::State& state) {
    const OwnedTensor x = random_parameter({n}), sum({1}, DType::f64, *k().memory);
    auto* result = sum.view().as<double>();
    measure(state, 0.0, parameter_traffic(n, 1), [&] { k().sum_of_squares(result, x.view()); });
  });
  add(m, "nag_step", [=](benchmark::State& state) {
    const OwnedTensor p = random_parameter({n}), velocity = empty_parameter({n}), g = random_parameter({n});
    const NagStep step{.lr = 1e-3, .lr_previous = 1e-3, .momentum = 0.99, .weight_decay = 0.0};
    const OnDevice<StepDecision> decision(std::vector<StepDecision>{{.grad_scale = 1e-3}});
    measure(state, 0.0, parameter_traffic(n, 5),
            [&] { k().nag_step(p.view(), velocity.view(), g.view(), step, decision.data()); });
  });
  add(m, "adam_step", [=](benchmark::State& state) {
    const OwnedTensor p = random_parameter({n}), mean = empty_parameter({n}), square = empty_parameter({n}),
                      g = random_parameter({n});
    AdamStep step{.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.98, .eps = 1e-8, .weight_decay = 0.0, .step = 1000};
    const OnDevice<StepDecision> decision(std::vector<StepDecision>{{.grad_scale = 1e-3}});
    measure(state, 0.0, parameter_traffic(n, 7),
            [&] { k().adam_step(p.view(), mean.view(), square.view(), g.view(), step, decision.data()); });
  });
  add(m, "sgd_step", [=](benchmark::State& state) {
    const OwnedTensor p = random_parameter({n}), momentum = empty_parameter({n}), g = random_parameter({n});
    const SgdStep step{.lr = 1e-3,
                       .momentum = 0.9,
                       .dampening = 0.0,
                       .weight_decay = 1e-4,
                       .decoupled = false,
                       .nesterov = true,
                       .step = 1000};
    const OnDevice<StepDecision> decision(std::vector<StepDecision>{{.grad_scale = 1e-3}});
    measure(state, 0.0, parameter_traffic(n, 5),
            [&] { k().sgd_step(p.view(), momentum.view(), g.view(), step, decision.data()); });
  });
  add(m, "rmsprop_step", [=](benchmark::State& state) {
    const OwnedTensor p = random_parameter({n}), square = empty_parameter({n}), momentum = empty_parameter({n}),
                      g = random_parameter({n});
    const RmspropStep step{.lr = 1e-3,
                           .alpha = 0.9,
                           .momentum = 0.9,
                           .eps = 1e-3,
                           .weight_decay = 1e-5,
                           .decoupled = false,
                           .lr_in_momentum = true};
    const OnDevice<StepDecision> decision(std::vector<StepDecision>{{.grad_scale = 1e-3}});
    measure(state, 0.0, parameter_traffic(n, 7),
            [&] { k().rmsprop_step(p.view(), square.view(), momentum.view(), g.view(), step, decision.data()); });
  });
}

void describe_run(DeviceKind device) {
  benchmark::AddCustomContext("device", name_of(device));
  benchmark::AddCustomContext("activations", name_of(g_dtype));
  if (!on_gpu()) benchmark::AddCustomContext("int8_products", cpu::int8_variants().front()->name);
  benchmark::AddCustomContext("threads", std::to_string(g_limits.threads));
  benchmark::AddCustomContext("limit_matmul_gflops", fmt::format("{:.1f}", g_limits.matmul_gflops));
  benchmark::AddCustomContext("limit_fma_gflops", fmt::format("{:.1f}", g_limits.fma_gflops));
  for (const CopyRate& rate : g_limits.copy)
    benchmark::AddCustomContext(fmt::format("limit_copy_{}_kib_gbps", rate.bytes >> 10),
                                fmt::format("{:.1f}", rate.gbps));
}

void run(DeviceKind device, const std::string& dtype) {
  const auto comm = make_local_communicator();
  g_kernels = &kernels_on(device, false, *comm);
  g_dtype = dtype == "bf16" ? DType::bf16 : DType::f32;
  for (const Model& model : on_gpu() ? std::vector<Model>{gpu_model()} : models())
    for (const auto& group : {add_matmuls, add_int8, add_copies, add_norms, add_dropout, add_rows, add_attention,
                              add_losses, add_weights, add_optimizers})
      group(model);
  g_limits = on_gpu() ? measure_device_limits(k(), g_dtype, *comm) : measure_limits(*comm);
  describe_run(device);
  benchmark::RunSpecifiedBenchmarks();
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "Measures a backend's kernels. Google Benchmark's options are understood, e.g.\n"
      "--benchmark_filter=matmul.*small, --benchmark_repetitions=5, --benchmark_format=json.");
  app.allow_extras();
  int threads = 0;
  DeviceKind device = DeviceKind::cpu;
  std::string dtype = "f32";
  app.add_option("--threads", threads, "Threads (0: OMP_NUM_THREADS, or all cores)")->check(CLI::NonNegativeNumber);
  cli::add_choice(app, "--device", device, "cpu, or cuda: on the shapes of configs/wikitext103.yaml");
  app.add_option("--dtype", dtype, "Type of activations")->check(CLI::IsMember({"f32", "bf16"}))->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  if (threads > 0) omp_set_num_threads(threads);
  std::vector<std::string> rest = app.remaining();
  std::vector<char*> arguments{argv[0]};
  for (std::string& text : rest) arguments.push_back(text.data());
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 1;
  try {
    run(device, dtype);
  } catch (const std::exception& error) {
    std::cerr << "kernels_bench: " << error.what() << '\n';
    return 1;
  }
}
