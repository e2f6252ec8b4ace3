// Whole training steps of a configuration on made-up tokens, through the product's own UpdateRunner and optimizer.
#include <algorithm>
#include <chrono>
#include <ctime>
#include <numbers>
#include <numeric>

#include "bench/program.h"
#include "bench/synthetic.h"
#include "cli/choice_option.h"
#include "compress/run_noise.h"
#include "compress/run_plan.h"
#include "ops/cuda/backend.h"
#include "ops/host_access.h"
#include "tasks/language_modeling.h"
#include "train/device.h"
#include "train/lr_schedule.h"
#include "train/throughput.h"
#include "train/update.h"

namespace {

using namespace qn;
using namespace qn::bench;

struct Options {
  CommonOptions common;
  std::string config;
  std::vector<std::string> overrides;
  int64_t steps = 10, warmup = 2, vocabulary = 33280;
  bool describe = false, limits = false;
  DeviceKind device = DeviceKind::cpu;
  std::string write_tokens;
  bool share_gpu = false;

  void add_to(CLI::App& app) {
    common.add_to(app);
    app.add_option("-c,--config", config, "YAML configuration (see configs/); its data folder is not needed");
    app.add_option("-s,--set", overrides, "Override one key, e.g. --set model.layers=2 (repeatable)")
        ->take_all()
        ->allow_extra_args(false);
    app.add_option("--steps", steps, "Measured updates")->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--warmup", warmup, "Updates before those")->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--vocabulary", vocabulary, "Size of the dictionary")->capture_default_str();
    app.add_flag("--describe", describe, "Print what would be computed as one JSON object, for the peers, and end");
    app.add_flag("--limits", limits, "Print what the machine can do, copy rates included, and end");
    cli::add_choice(app, "--device", device, "cpu or cuda");
    app.add_flag("--share-gpu", share_gpu, "Allow more ranks than GPUs on a machine");
    app.add_option("--write-tokens", write_tokens, "Write the tokens to this file (raw int32) and end");
  }
  RunConfig read() const {
    return read_config<RunConfig>(config.empty() ? config_tree_from_text("", "defaults", overrides)
                                                 : load_config_tree(config, overrides));
  }
};

/// The micro-batches of all steps: [steps][micro_batches][rows][cols + 1] ids; each row is source and target, shifted.
class Tokens {
 public:
  Tokens(const RunConfig& config, const Options& options)
      : rows_(std::max<int64_t>(1, config.data.max_tokens / config.data.tokens_per_sample)),
        cols_(config.data.tokens_per_sample),
        per_update_(config.train.micro_batches),
        ids_(zipf_tokens((options.warmup + options.steps) * per_update_ * rows_ * (cols_ + 1), options.vocabulary,
                         static_cast<uint64_t>(config.seed))) {
    source_.resize(static_cast<size_t>(rows_ * cols_));
    target_.resize(source_.size());
  }

  /// Valid until the next call.
  MicroBatch micro_batch(LanguageModel& model, int64_t update, int64_t index) {
    const int32_t* ids = ids_.data() + (update * per_update_ + index) * rows_ * (cols_ + 1);
    for (int64_t r = 0; r < rows_; ++r) {
      std::copy_n(ids + r * (cols_ + 1), cols_, source_.data() + r * cols_);
      std::copy_n(ids + r * (cols_ + 1) + 1, cols_, target_.data() + r * cols_);
    }
    return micro_batch_of(model, {rows_, cols_, source_, target_}, rows_ * cols_);
  }
  int64_t rows() const { return rows_; }
  int64_t tokens_per_update() const { return per_update_ * rows_ * cols_; }
  const std::vector<int32_t>& ids() const { return ids_; }

 private:
  int64_t rows_, cols_, per_update_;
  std::vector<int32_t> ids_, source_, target_;
};

/// What the peers need to build the same model and the same batches.
Json describe(const RunConfig& config, const Options& options, const Tokens& tokens) {
  const ModelConfig& m = config.model;
  return {{"layers", m.layers},
          {"width", m.embed_dim},
          {"ffn", m.ffn_dim},
          {"heads", m.heads},
          {"dropout", m.dropout},
          {"attention_dropout", m.attention_dropout},
          {"activation_dropout", m.activation_dropout},
          {"final_norm", m.final_norm},
          {"cutoffs", m.adaptive.cutoffs},
          {"factor", m.adaptive.factor},
          {"softmax_dropout", m.adaptive.dropout},
          {"vocabulary", options.vocabulary},
          {"rows", tokens.rows()},
          {"time", config.data.tokens_per_sample},
          {"micro_batches", config.train.micro_batches},
          {"optimizer", name_of(config.optimizer.name)},
          {"momentum", config.optimizer.momentum},
          {"beta1", config.optimizer.beta1},
          {"beta2", config.optimizer.beta2},
          {"eps", config.optimizer.eps},
          {"weight_decay", config.optimizer.weight_decay},
          {"clip_norm", config.optimizer.clip_norm},
          {"lr", config.schedule.lr},
          {"noise", config.quant_noise.pq},
          {"noise_block", config.quant_noise.block_size.value_or(8)},
          {"noise_groups",
           config.quant_noise.pq > 0.0 ? expand_groups(config.quant_noise.groups) : std::vector<std::string>{}},
          // bench/peers/torch_step.py has this model only.
          {"peer_has_it", m.prenorm && m.activation == Activation::relu && !m.learned_positions && m.adaptive.input &&
                              m.adaptive.softmax && m.adaptive.tie_weights && m.adaptive.tie_projections}};
}

/// Times of the measured updates, and what they did.
struct Measured {
  std::vector<double> seconds;
  double processor_seconds = 0.0;  ///< of this rank, per update: other programs on the machine hardly change it
  double flops = 0.0;              ///< per update, all ranks
  double loss = 0.0;               ///< bits per token of the last update
  int64_t parameters = 0, arena_bytes = 0;
  DeviceMemory gpu;
};

Measured train(const RunConfig& config, const Options& options, const Kernels& kernels, DType dtype, Tokens& tokens,
               Communicator& comm) {
  const auto model = make_language_model(config.model, options.vocabulary, config.data.tokens_per_sample);
  Measured measured;
  measured.parameters = model->parameters().elements();
  model->parameters().allocate(DType::f32, kernels);
  model->parameters().initialize(static_cast<uint64_t>(config.seed));
  const QuantizationPlan plan = make_run_plan(*model, config.quant_noise, nullptr, config.ipq);
  apply_noise(model->weights(), plan);
  const auto optimizer = make_optimizer(config.optimizer, model->parameters(), config.schedule.lr);
  const UpdateOptions update_options{.seed = static_cast<uint64_t>(config.seed),
                                     .dtype = dtype,
                                     .clip_norm = config.optimizer.clip_norm,
                                     .bucket_bytes = static_cast<size_t>(config.comm.bucket_mib * 1024 * 1024),
                                     .overlap = config.comm.overlap.value_or(false),
                                     .skip_missing = config.optimizer.missing_gradient == MissingGradient::skip,
                                     .graphs = use_graphs(config.train, comm)};
  measured.flops = measure_work(*model, kernels, dtype, config.train.micro_batches, [&](int64_t i) {
                     return tokens.micro_batch(*model, 0, i);
                   }).flops;
  UpdateRunner runner(*model, kernels, comm, update_options);
  const int64_t updates = options.warmup + options.steps;
  RunNoise noise(*model, comm, plan,
                 {.seed = static_cast<uint64_t>(config.seed),
                  .codebook_updates = config.quant_noise.codebook_updates,
                  .refresh_iterations = config.quant_noise.codebook_iterations,
                  .total_updates = updates});
  const size_t under_way = on_host(kernels) ? 0 : 1;  // as the trainer does it
  std::vector<std::chrono::steady_clock::time_point> ends;
  std::clock_t processor = 0;
  const auto finish = [&] {
    const UpdateResult result = runner.finish();
    measured.loss = result.loss / static_cast<double>(result.sample_size) / std::numbers::ln2;
    ends.push_back(std::chrono::steady_clock::now());
    if (std::ssize(ends) == options.warmup) processor = std::clock();
  };
  for (int64_t update = 0; update < updates; ++update) {
    const auto fetch = [&](int64_t i) { return tokens.micro_batch(*model, update, i); };
    const double lr = learning_rate(config.schedule, update, std::max<int64_t>(updates, config.train.max_updates));
    noise.set_rates(update);
    if (noise.refresh_due(update)) noise.refresh(update);
    runner.start(update, config.train.micro_batches, fetch, *optimizer, lr);
    while (runner.pending() > under_way) finish();
  }
  while (runner.pending() > 0) finish();
  measured.processor_seconds =
      static_cast<double>(std::clock() - processor) / static_cast<double>(CLOCKS_PER_SEC * options.steps);
  for (auto u = static_cast<size_t>(options.warmup); u < ends.size(); ++u)
    measured.seconds.push_back(std::chrono::duration<double>(ends[u] - ends[u - 1]).count());
  measured.gpu = Device(kernels).memory().value_or(DeviceMemory{});
  measured.arena_bytes = static_cast<int64_t>(runner.arena().peak());
  return measured;
}

Json measure(const RunConfig& config, const Options& options, Communicator& comm) {
  Tokens tokens(config, options);
  reset_peak_memory();
  const Kernels& kernels = kernels_on(options.device, options.share_gpu, comm);
  const DType dtype = activation_type(config.train.precision, kernels, comm);
  set_product_precision(config.train.precision, kernels);
  const Measured measured = train(config, options, kernels, dtype, tokens, comm);
  const auto peak = static_cast<double>(peak_memory());
  // After the steps, so that the arrays of the measurement do not count as memory of the training.
  constexpr size_t kCopies = size_t{256} << 20;
  const Limits limits = options.device == DeviceKind::cpu ? measure_arithmetic(comm)
                                                          : measure_device_limits(kernels, dtype, comm, kCopies);
  const double seconds = median(measured.seconds), gflops = measured.flops / seconds * 1e-9;
  Json report{{"program", "step_bench"},
              {"config", options.config},
              {"set", options.overrides},
              {"ranks", comm.size()},
              {"threads", limits.threads},
              {"device", name_of(options.device)},
              {"precision", precision_text(config.train.precision, dtype, kernels)},
              {"parameters", measured.parameters},
              {"tokens_per_update", tokens.tokens_per_update()},
              {"seconds", seconds},
              // With what happens in some updates only: codebooks of noise.
              {"seconds_mean", std::accumulate(measured.seconds.begin(), measured.seconds.end(), 0.0) /
                                   static_cast<double>(measured.seconds.size())},
              {"processor_seconds", measured.processor_seconds},
              {"seconds_fastest", *std::ranges::min_element(measured.seconds)},
              {"tokens_per_second", static_cast<double>(tokens.tokens_per_update()) / seconds},
              {"gflop_per_update", measured.flops * 1e-9},
              {"gflops", gflops},
              {"share_of_matmul_peak", gflops / limits.matmul_gflops},
              {"peak_mib_all_ranks", comm.all_reduce_sum_value(peak) / 1048576.0},
              {"arena_mib", static_cast<double>(measured.arena_bytes) / 1048576.0},
              {"gpu_used_mib", static_cast<double>(measured.gpu.total - measured.gpu.free) / 1048576.0},
              {"loss_bits", measured.loss},
              {"limits", to_json(limits)}};
  return report;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Measures training updates on made-up tokens: forward, backward, all-reduce, clipping, optimizer.");
  Options options;
  options.add_to(app);
  return run_program(app, options.common, argc, argv, [&](Communicator& comm) {
    if (options.limits) {
      const Json report = to_json(measure_limits(comm));
      if (comm.is_root()) print_report(report, options.common.json);
      return;
    }
    const RunConfig config = options.read();
    if (options.describe || !options.write_tokens.empty()) {
      const Tokens tokens(config, options);
      if (!options.write_tokens.empty()) write_raw(options.write_tokens, std::as_bytes(std::span(tokens.ids())));
      if (options.describe) print_report(describe(config, options, tokens), true);
      return;
    }
    const Json report = measure(config, options, comm);
    if (comm.is_root()) print_report(report, options.common.json);
  });
}
