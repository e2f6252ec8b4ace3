// StageKMeans on one large random matrix: time, multiplications per second, objective, memory beside the matrix. Or all
// stages of a model's iPQ.
#include <omp.h>

#include <chrono>

#include "bench/program.h"
#include "bench/synthetic.h"
#include "cli/choice_option.h"
#include "compress/ipq.h"
#include "core/error.h"
#include "ops/cuda/backend.h"
#include "ops/host_access.h"
#include "quant/kmeans.h"
#include "tasks/language_modeling.h"
#include "train/device.h"

namespace {

using namespace qn;
using namespace qn::bench;

struct Options {
  CommonOptions common;
  int64_t rows = 1024, cols = 4096, block = 8, centroids = 256, iterations = 15, repeats = 1;
  int64_t vocabulary = 267744;
  uint64_t seed = 1;
  DeviceKind device = DeviceKind::cpu;
  std::string config, write_matrix, simd;
  std::vector<std::string> overrides;

  void add_to(CLI::App& app) {
    common.add_to(app);
    app.add_option("--rows", rows, "Rows of the matrix")->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--cols", cols, "Columns, a multiple of the block")->capture_default_str();
    app.add_option("--block", block, "Elements of a sub-vector (d)")->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--centroids", centroids, "Number of centroids (K)")->capture_default_str();
    app.add_option("--iterations", iterations, "Iterations")->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--repeats", repeats, "Runs; the median time is reported")->capture_default_str();
    app.add_option("--seed", seed, "Of the matrix")->capture_default_str();
    cli::add_choice(app, "--device", device, "Where the weights are and k-means runs");
    app.add_option("--simd", simd, "avx512vnni, avx512, avx2 or baseline: the CPU's k-means with these instructions");
    app.add_option(
        "-c,--config", config,
        "Instead of the matrix: all stages of this YAML configuration's iPQ, on its model's initial weights");
    app.add_option("-s,--set", overrides, "Override one key of the configuration (repeatable)")
        ->take_all()
        ->allow_extra_args(false);
    app.add_option("--vocabulary", vocabulary, "Size of the model's dictionary")->capture_default_str();
    app.add_option("--write-matrix", write_matrix, "Write the matrix to this file (raw float32) and end");
  }
};

/// What one run gave.
struct Run {
  double seconds = 0.0, objective = 0.0;
  int64_t iterations = 0;
  int64_t extra_bytes = 0;
};

Run run_once(const Options& options, const std::vector<float>& matrix, const float* weight, const Kernels& kernels,
             Communicator& comm) {
  // Both competitors start from the first sub-vectors, so that their objectives can be compared.
  const auto start_values = static_cast<std::ptrdiff_t>(options.centroids * options.block);
  KMeansProblem problem{.name = "matrix",
                        .weight = weight,
                        .rows = options.rows,
                        .cols = options.cols,
                        .block_size = options.block,
                        .n_centroids = options.centroids,
                        .initial_centroids = {matrix.begin(), matrix.begin() + start_values}};
  reset_peak_memory();
  const int64_t before = resident_memory();
  comm.barrier();
  const auto start = std::chrono::steady_clock::now();
  StageKMeans kmeans({std::move(problem)}, {.iterations = options.iterations}, comm, kernels);
  while (kmeans.step()) continue;
  const std::vector<WeightResult> results = kmeans.finish();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return {seconds, results[0].objective, kmeans.state().iteration, peak_memory() - before};
}

/// Has the CPU's k-means use the instructions that were asked for.
void choose_simd(const std::string& name) {
  for (const AssignVariant& variant : assign_variants())
    if (name == variant.name && variant.supported) use_assign_variant(&variant);
  QN_CHECK(name.empty() || name == assign_variant().name,
           "--simd: '{}' is none of the names in --help, or this processor has no such instructions", name);
}

/// What arithmetic the device can do: measured on the CPU, on a GPU from its clock.
struct Limit {
  Json report;
  double fma_gflops = 0.0;
};

Limit limit_of(const Options& options, Communicator& comm) {
  if (options.device == DeviceKind::cuda) {
    std::vector<double> all = {cuda_fma_gflops()};
    comm.all_reduce_sum(std::span<double>(all));
    return {{{"fma_gflops", all[0]}}, all[0]};
  }
  const Limits limits = measure_arithmetic(comm);
  return {to_json(limits), limits.fma_gflops};
}

/// Members that every report has; `flops` of all ranks together.
Json report_of(const Options& options, double flops, double seconds, Communicator& comm) {
  const Limit limit = limit_of(options, comm);
  const double rate = flops / seconds * 1e-9;
  return {{"program", "kmeans_bench"},
          {"device", name_of(options.device)},
          {"ranks", comm.size()},
          {"threads", omp_get_max_threads()},
          {"simd", options.device == DeviceKind::cpu ? assign_variant().name : "none"},
          {"seconds", seconds},
          {"gflops", rate},
          {"share_of_fma_peak", rate / limit.fma_gflops},
          {"limits", limit.report}};
}

Json measure_matrix(const Options& options, const Kernels& kernels, Communicator& comm) {
  const std::vector<float> matrix = normal_values(options.rows * options.cols, options.seed);
  OwnedTensor on_device;
  if (!on_host(kernels)) {
    on_device = OwnedTensor({options.rows, options.cols}, DType::f32, *kernels.memory);
    upload(kernels, on_device.view(), view_of(matrix.data(), {options.rows, options.cols}));
  }
  std::vector<double> seconds;
  Run run;
  for (int64_t i = 0; i < options.repeats; ++i) {
    run = run_once(options, matrix, on_host(kernels) ? matrix.data() : on_device.view().as<float>(), kernels, comm);
    seconds.push_back(run.seconds);
  }
  const double flops = 2.0 * static_cast<double>(options.rows * options.cols) *
                       static_cast<double>(options.centroids * options.iterations);
  Json report = report_of(options, flops, median(seconds), comm);
  report["sub_vectors"] = options.rows * options.cols / options.block;
  report["block"] = options.block;
  report["centroids"] = options.centroids;
  report["iterations"] = run.iterations;
  report["milliseconds_per_iteration"] = 1e3 * median(seconds) / static_cast<double>(run.iterations);
  report["objective"] = run.objective;
  report["extra_mib"] = static_cast<double>(run.extra_bytes) / 1048576.0;
  return report;
}

/// Multiply-adds of the E-steps of all stages, as two operations each; splits of empty clusters are not counted.
double flops_of(const QuantizationPlan& plan, int64_t iterations) {
  double flops = 0.0;
  for (const WeightPlan& w : plan.quantized())
    if (const auto kmeans = w.quantizer->kmeans())
      flops += 2.0 * static_cast<double>(w.rows * w.cols) * static_cast<double>(kmeans->n_centroids * iterations);
  return flops;
}

Json measure_model(const Options& options, const Kernels& kernels, Communicator& comm) {
  const auto config = read_config<RunConfig>(load_config_tree(options.config, options.overrides));
  const auto model = make_language_model(config.model, options.vocabulary, config.data.tokens_per_sample);
  model->parameters().allocate(DType::f32, kernels);
  model->parameters().initialize(options.seed);
  std::vector<int64_t> token_counts;  // as in text: one over the rank
  for (int64_t i = 0; i < options.vocabulary; ++i) token_counts.push_back(100'000'000 / (i + 1));
  const int64_t elements = model->parameters().elements();
  const RowImportance importance = [&](const Weight& weight) {
    return weight.first_token() < 0 ? std::vector<float>()
                                    : frequency_importance(weight, token_counts, config.ipq.frequency_exponent);
  };
  IpqMachine ipq(config.ipq, *model, comm, options.seed, make_run_plan(*model, {}, &config.ipq), importance);
  const double flops = flops_of(ipq.plan(), config.ipq.kmeans_iterations);
  double seconds = 0.0;
  Json stages = Json::object();
  while (ipq.stages_done() < ipq.stages()) {
    comm.barrier();
    const std::optional<StageReport> stage = ipq.run_stage([](int64_t) { return true; });
    stages[fmt::format("stage_{}", stage->stage + 1)] = {{"weights", stage->weights},
                                                         {"seconds", stage->seconds},
                                                         {"splits", stage->splits},
                                                         {"relative_error", stage->relative_error}};
    seconds += stage->seconds;
  }
  Json report = report_of(options, flops, seconds, comm);
  report["parameters"] = elements;
  report["iterations"] = config.ipq.kmeans_iterations;
  report["stages"] = stages;
  return report;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "Measures k-means on a standard normal matrix, or on all weights of a model. Under mpirun the ranks share the "
      "sub-vectors out.");
  Options options;
  options.add_to(app);
  return run_program(app, options.common, argc, argv, [&](Communicator& comm) {
    QN_CHECK(options.cols % options.block == 0, "--cols {} is no multiple of --block {}", options.cols, options.block);
    QN_CHECK(options.repeats > 0, "--repeats must be positive");
    if (!options.write_matrix.empty()) {
      write_raw(options.write_matrix,
                std::as_bytes(std::span<const float>(normal_values(options.rows * options.cols, options.seed))));
      return;
    }
    choose_simd(options.simd);
    const Kernels& kernels = kernels_on(options.device, false, comm);
    const Json report =
        options.config.empty() ? measure_matrix(options, kernels, comm) : measure_model(options, kernels, comm);
    if (comm.is_root()) print_report(report, options.common.json);
  });
}
