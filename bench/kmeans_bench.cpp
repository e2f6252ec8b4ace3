// StageKMeans on one large random matrix: time, multiplications per second, objective, memory beside the matrix.
#include <chrono>

#include "bench/program.h"
#include "bench/synthetic.h"
#include "core/error.h"
#include "quant/kmeans.h"

namespace {

using namespace qn;
using namespace qn::bench;

struct Options {
  CommonOptions common;
  int64_t rows = 1024, cols = 4096, block = 8, centroids = 256, iterations = 15, repeats = 1;
  uint64_t seed = 1;
  std::string write_matrix;

  void add_to(CLI::App& app) {
    common.add_to(app);
    app.add_option("--rows", rows, "Rows of the matrix")->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--cols", cols, "Columns, a multiple of the block")->capture_default_str();
    app.add_option("--block", block, "Elements of a sub-vector (d)")->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--centroids", centroids, "Number of centroids (K)")->capture_default_str();
    app.add_option("--iterations", iterations, "Iterations")->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--repeats", repeats, "Runs; the median time is reported")->capture_default_str();
    app.add_option("--seed", seed, "Of the matrix")->capture_default_str();
    app.add_option("--write-matrix", write_matrix, "Write the matrix to this file (raw float32) and end");
  }
};

/// What one run gave.
struct Run {
  double seconds = 0.0, objective = 0.0;
  int64_t extra_bytes = 0;
};

Run run_once(const Options& options, const std::vector<float>& matrix, Communicator& comm) {
  // Both competitors start from the first sub-vectors, so that their objectives can be compared.
  const auto start_values = static_cast<std::ptrdiff_t>(options.centroids * options.block);
  KMeansProblem problem{.name = "matrix",
                        .weight = matrix.data(),
                        .rows = options.rows,
                        .cols = options.cols,
                        .block_size = options.block,
                        .n_centroids = options.centroids,
                        .initial_centroids = {matrix.begin(), matrix.begin() + start_values}};
  reset_peak_memory();
  const int64_t before = resident_memory();
  comm.barrier();
  const auto start = std::chrono::steady_clock::now();
  StageKMeans kmeans({std::move(problem)}, {.iterations = options.iterations}, comm);
  while (kmeans.step()) continue;
  const std::vector<LayerResult> results = kmeans.finish();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return {seconds, results[0].objective, peak_memory() - before};
}

Json measure(const Options& options, Communicator& comm) {
  const std::vector<float> matrix = normal_values(options.rows * options.cols, options.seed);
  std::vector<double> seconds;
  Run run;
  for (int64_t i = 0; i < options.repeats; ++i) {
    run = run_once(options, matrix, comm);
    seconds.push_back(run.seconds);
  }
  const Limits limits = measure_arithmetic(comm);
  const double flops = 2.0 * static_cast<double>(options.rows * options.cols) *
                       static_cast<double>(options.centroids * options.iterations);
  const double rate = flops / median(seconds) * 1e-9;
  return {{"program", "kmeans_bench"},
          {"ranks", comm.size()},
          {"threads", limits.threads},
          {"sub_vectors", options.rows * options.cols / options.block},
          {"block", options.block},
          {"centroids", options.centroids},
          {"iterations", options.iterations},
          {"seconds", median(seconds)},
          {"gflops", rate},
          {"share_of_fma_peak", rate / limits.fma_gflops},
          {"objective", run.objective},
          {"extra_mib", static_cast<double>(run.extra_bytes) / 1048576.0},
          {"limits", to_json(limits)}};
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Measures k-means on a standard normal matrix. Under mpirun the ranks share the sub-vectors out.");
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
    const Json report = measure(options, comm);
    if (comm.is_root()) print_report(report, options.common.json);
  });
}
