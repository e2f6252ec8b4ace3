// Whole training steps of a configuration through the product's own UpdateRunner and optimizer: of language models on
// made-up tokens, of other tasks on their data.
#include <algorithm>
#include <chrono>
#include <ctime>
#include <iostream>
#include <numbers>
#include <numeric>

#include "bench/program.h"
#include "bench/step_source.h"
#include "bench/synthetic.h"
#include "cli/choice_option.h"
#include "compress/run_noise.h"
#include "compress/run_plan.h"
#include "ops/cuda/backend.h"
#include "ops/host_access.h"
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
  bool describe = false, limits = false, turns = false;
  DeviceKind device = DeviceKind::cpu;
  std::string write_tokens;
  bool share_gpu = false;

  void add_to(CLI::App& app) {
    common.add_to(app);
    app.add_option("-c,--config", config,
                   "YAML configuration (see configs/); a language model's data folder is not needed");
    app.add_option("-s,--set", overrides, "Override one key, e.g. --set model.layers=2 (repeatable)")
        ->take_all()
        ->allow_extra_args(false);
    app.add_option("--steps", steps, "Measured updates")->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--warmup", warmup, "Updates before those")->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--vocabulary", vocabulary, "Size of a language model's dictionary")->capture_default_str();
    app.add_flag(
        "--turns", turns,
        "After the warm-up, wait for a line of standard input before every --steps updates, and print what they "
        "took as one JSON object; for comparisons in which programs take turns");
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

/// What the peers need to build the same model and the same batches.
Json describe(const RunConfig& config, const Options& options, const MadeUpText& tokens) {
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

std::unique_ptr<StepSource> source_of(const RunConfig& config, const Options& options) {
  if (config.task.type == TaskType::language_modeling)
    return std::make_unique<MadeUpText>(config, options.vocabulary, options.warmup + options.steps);
  QN_CHECK(!config.data.path.empty(), "{}: --set data.path=FOLDER names the data of this task", options.config);
  return std::make_unique<TaskUpdates>(config, options.steps);
}

/// What measured updates took, and what they did.
struct Measured {
  std::vector<double> seconds;     ///< of each
  double processor_seconds = 0.0;  ///< of this rank, all together: other programs on the machine hardly change it
  int64_t tokens = 0, samples = 0;
  double loss = 0.0;  ///< bits per sample of the last update

  double all_seconds() const { return std::accumulate(seconds.begin(), seconds.end(), 0.0); }
};

/// A run of a configuration as the trainer goes through it, without validation and files.
class Training {
 public:
  Training(const RunConfig& config, const Options& options, const Kernels& kernels, DType dtype, Communicator& comm)
      : config_(config), kernels_(kernels), comm_(comm), source_(source_of(config, options)) {
    ParameterStore& store = module().parameters();
    parameters_ = store.elements();
    store.allocate(DType::f32, kernels);
    store.initialize(static_cast<uint64_t>(config.seed));
    const QuantizationPlan plan = make_run_plan(module(), config.quant_noise, nullptr, config.ipq);
    apply_noise(module().weights(), plan);
    optimizer_ = make_optimizer(config.optimizer, store, config.schedule.lr);
    flops_ = measure_work(module(), kernels, dtype, config.train.micro_batches, [&](int64_t i) {
               return source_->example(i, config.train.micro_batches);
             }).flops;
    runner_ = std::make_unique<UpdateRunner>(
        module(), kernels, comm,
        UpdateOptions{.seed = static_cast<uint64_t>(config.seed),
                      .dtype = dtype,
                      .clip_norm = config.optimizer.clip_norm,
                      .bucket_bytes = config.comm.bucket_bytes(false),
                      .overlap = config.comm.overlap.value_or(false),
                      .skip_missing = config.optimizer.missing_gradient == MissingGradient::skip,
                      .graphs = use_graphs(config.train, comm)});
    updates_ = std::max<int64_t>(options.warmup + options.steps, config.train.max_updates);
    noise_ = std::make_unique<RunNoise>(module(), comm, plan,
                                        RunNoiseOptions{.seed = static_cast<uint64_t>(config.seed),
                                                        .codebook_updates = config.quant_noise.codebook_updates,
                                                        .refresh_iterations = config.quant_noise.codebook_iterations,
                                                        .total_updates = options.warmup + options.steps});
  }

  Measured run(int64_t updates) {
    Measured measured;
    const std::clock_t processor = std::clock();
    auto last = std::chrono::steady_clock::now();
    const auto finish = [&] {
      const UpdateResult result = runner_->finish();
      measured.loss = result.loss / static_cast<double>(result.sample_size) / std::numbers::ln2;
      measured.samples += result.sample_size;
      const auto now = std::chrono::steady_clock::now();
      measured.seconds.push_back(std::chrono::duration<double>(now - last).count());
      last = now;
    };
    const size_t under_way = on_host(kernels_) ? 0 : 1;  // as the trainer does it
    for (int64_t i = 0; i < updates; ++i) {
      start(measured.tokens);
      while (runner_->pending() > under_way) finish();
    }
    while (runner_->pending() > 0) finish();
    measured.tokens = comm_.all_reduce_sum_value(measured.tokens);
    measured.processor_seconds = static_cast<double>(std::clock() - processor) / static_cast<double>(CLOCKS_PER_SEC);
    return measured;
  }

  int64_t parameters() const { return parameters_; }
  double flops() const { return flops_; }  ///< of an update, all ranks
  const Arena& arena() const { return runner_->arena(); }
  std::string samples() const { return source_->samples(); }

 private:
  Module& module() { return source_->module(); }

  /// Adds this rank's tokens to `tokens`.
  void start(int64_t& tokens) {
    const auto fetch = [&](int64_t i) {
      MicroBatch micro = source_->micro_batch(i);
      tokens += micro.tokens;
      return micro;
    };
    noise_->set_rates(update_);
    if (noise_->refresh_due(update_)) noise_->refresh(update_);
    const int64_t count = source_->next_update();
    runner_->start(update_, count, fetch, *optimizer_, learning_rate(config_.schedule, update_, updates_));
    ++update_;
  }

  const RunConfig& config_;
  const Kernels& kernels_;
  Communicator& comm_;
  std::unique_ptr<StepSource> source_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<UpdateRunner> runner_;
  std::unique_ptr<RunNoise> noise_;
  int64_t parameters_ = 0, updates_ = 0, update_ = 0;
  double flops_ = 0.0;
};

/// One line of standard input, one turn.
void take_turns(Training& training, const Options& options, Communicator& comm) {
  QN_CHECK_USAGE(comm.size() == 1, "--turns is for one rank");
  for (std::string line; std::getline(std::cin, line);) {
    const Measured measured = training.run(options.steps);
    print_report({{"tokens", measured.tokens},
                  {training.samples(), measured.samples},
                  {"seconds", measured.all_seconds()},
                  {"loss_bits", measured.loss}},
                 true);
  }
}

Json measure(const RunConfig& config, const Options& options, Communicator& comm) {
  reset_peak_memory();
  const Kernels& kernels = kernels_on(options.device, options.share_gpu, comm);
  const DType dtype = activation_type(config.train.precision, kernels, comm);
  set_product_precision(config.train.precision, kernels);
  Training training(config, options, kernels, dtype, comm);
  training.run(options.warmup);
  if (options.turns) {
    take_turns(training, options, comm);
    return {};
  }
  const Measured measured = training.run(options.steps);
  const DeviceMemory gpu = Device(kernels).memory().value_or(DeviceMemory{});
  const auto peak = static_cast<double>(peak_memory());
  // After the steps, so that the arrays of the measurement do not count as memory of the training.
  constexpr size_t kCopies = size_t{256} << 20;
  const Limits limits = options.device == DeviceKind::cpu ? measure_arithmetic(comm)
                                                          : measure_device_limits(kernels, dtype, comm, kCopies);
  const auto steps = static_cast<double>(options.steps);
  const double seconds = median(measured.seconds), gflops = training.flops() / seconds * 1e-9;
  const double tokens = static_cast<double>(measured.tokens) / steps;
  Json report{{"program", "step_bench"},
              {"config", options.config},
              {"set", options.overrides},
              {"ranks", comm.size()},
              {"threads", limits.threads},
              {"device", name_of(options.device)},
              {"simd", limits.simd},
              {"precision", precision_text(config.train.precision, dtype, kernels)},
              {"parameters", training.parameters()},
              {"tokens_per_update", tokens},
              {"seconds", seconds},
              // With what happens in some updates only: codebooks of noise.
              {"seconds_mean", measured.all_seconds() / steps},
              {"processor_seconds", measured.processor_seconds / steps},
              {"seconds_fastest", *std::ranges::min_element(measured.seconds)},
              {"tokens_per_second", tokens / seconds},
              {"gflop_per_update", training.flops() * 1e-9},
              {"gflops", gflops},
              {"share_of_matmul_peak", gflops / limits.matmul_gflops},
              {"peak_mib_all_ranks", comm.all_reduce_sum_value(peak) / 1048576.0},
              {"arena_mib", static_cast<double>(training.arena().peak()) / 1048576.0},
              {"gpu_used_mib", static_cast<double>(gpu.total - gpu.free) / 1048576.0},
              {"loss_bits", measured.loss},
              {"limits", to_json(limits)}};
  return report;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "Measures training updates: forward, backward, all-reduce, clipping, optimizer. Of language models on made-up "
      "tokens, of other tasks on the data of --set data.path=FOLDER.");
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
      const MadeUpText tokens(config, options.vocabulary, options.warmup + options.steps);
      if (!options.write_tokens.empty()) write_raw(options.write_tokens, std::as_bytes(std::span(tokens.ids())));
      if (options.describe) print_report(describe(config, options, tokens), true);
      return;
    }
    const Json report = measure(config, options, comm);
    if (comm.is_root() && !report.empty()) print_report(report, options.common.json);
  });
}
