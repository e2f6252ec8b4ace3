#include <spdlog/spdlog.h>

#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/quantize_weights.h"
#include "cli/run_check.h"
#include "cli/signals.h"
#include "cli/usage.h"
#include "comm/watchdog.h"
#include "core/fault_point.h"
#include "core/file_io.h"
#include "core/profiler.h"
#include "core/text.h"
#include "tasks/model_file.h"
#include "tasks/run.h"
#include "train/finetuning.h"
#include "train/start_checks.h"
#include "train/trainer.h"

namespace qn::cli {
namespace {

struct QuantizeArguments {
  ConfigOptions config;
  std::string out;
  ForeignArguments foreign;
  ComputeOptions compute;
  int64_t vocabulary = 0;
  bool dry_run = false, json = false, fresh = false, check = false;
};

void dry_run(const QuantizeArguments& a, const RunConfig& config) {
  const auto task = preview_task(config, a.vocabulary);
  const Module& model = task->module();
  const QuantizationPlan plan = make_run_plan(model, config.quant_noise, &config.ipq);
  Finetuning(config.ipq, plan, config.optimizer, config.schedule);  // are there entries for all stages?
  const int64_t parameters = model.parameters().elements();
  const bool known = a.vocabulary == 0;  // the words, and not only how many there are
  if (!known && config.ipq.vocabulary.value_or(task->packs_vocabulary()))
    spdlog::info("sizes are told without the vocabulary that the file will carry: it depends on the data (data.path)");
  const PackedVocabulary vocabulary = packed_vocabulary(*task, known ? config.ipq.vocabulary : false);
  const SizeReport sizes = predict_packed_sizes(
      model, plan, packed_metadata(*task, parameters, config.ipq.centroid_gradient, plan), vocabulary.tensors());
  if (a.json) {
    nlohmann::ordered_json weights = nlohmann::ordered_json::array();
    for (const WeightPlan& w : plan.quantized())
      weights.push_back({{"name", w.name},
                         {"stage", w.stage + 1},
                         {"rows", w.rows},
                         {"cols", w.cols},
                         {"type", w.quantizer->type()},
                         {"options", w.quantizer->options()}});
    const nlohmann::ordered_json result{{"parameters", parameters},
                                        {"original_bytes", sizes.original_bytes()},
                                        {"predicted_bytes", sizes.total_bytes()},
                                        {"ratio", sizes.ratio()},
                                        {"weights", weights},
                                        {"sizes", nlohmann::ordered_json::parse(sizes.to_json())}};
    std::cout << result.dump() << std::endl;
    return;
  }
  std::cout << describe(plan) << '\n' << sizes.to_table();
  std::cout << fmt::format("{} parameters; the file will have {} bytes\n", group_digits(parameters),
                           group_digits(static_cast<int64_t>(sizes.total_bytes())));
}

/// A file under another name, which it keeps until it has been found good. Collective.
class UnverifiedFile {
 public:
  UnverifiedFile(const std::filesystem::path& final_path, Communicator& comm)
      : final_(output_target(final_path)), path_(final_.string() + ".unverified"), comm_(comm) {
    if (comm_.is_root()) mark_temporary(path_, true);
  }
  ~UnverifiedFile() {
    if (!comm_.is_root()) return;
    remove_file(path_);
    mark_temporary(path_, false);
  }
  UnverifiedFile(const UnverifiedFile&) = delete;
  UnverifiedFile& operator=(const UnverifiedFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  void accept() const {
    comm_.barrier();  // all ranks have read it
    if (comm_.is_root()) rename_file(path_, output_target(final_));
    comm_.barrier();
  }

 private:
  std::filesystem::path final_, path_;
  Communicator& comm_;
};

/// Writes the packed file and reads it as a user will (from disk).
ModelFile write_and_load(Trainer& trainer, const PackedMetadata& metadata, const PackedVocabulary& vocabulary,
                         const PackedStorage& storage, const std::filesystem::path& out, const Kernels& kernels,
                         Communicator& comm) {
  const ProfileScope phase(Phase::checkpoint);
  if (comm.is_root()) write_packed(out, trainer.module(), metadata, storage, vocabulary.tensors());
  comm.barrier();
  return load_model_file(out, kernels);
}

void add_metrics(const std::string& prefix, const Evaluation& found, std::vector<MetricField>& fields) {
  for (const Metric& metric : found.metrics) fields.push_back({prefix + metric.name, metric.value});
}

/// Packs the model, evaluates the file, and makes sure that it computes what the model in memory does. Returns what
/// metrics.jsonl keeps of that.
std::vector<MetricField> pack(Trainer& trainer, RunTask& task, const PackedVocabulary& vocabulary,
                              const RunConfig& config, const std::filesystem::path& out, const Kernels& kernels,
                              Communicator& comm) {
  const int64_t parameters = trainer.original_parameters();
  const Evaluation before = trainer.validate_now();
  const PackedStorage storage = packed_storage(config.ipq);
  trainer.round_weights(storage);
  fault_point("pack.rounded");
  const Evaluation rounded = trainer.validate_now();
  QN_CHECK(
      rounded.finite(),
      "rounded to what the packed file stores, the model evaluates to {} ({} before): keep what is not quantized in "
      "fp32 (ipq.dense: fp32); {} is not written",
      rounded.text(), before.text(), out.string());
  const UnverifiedFile unverified(out, comm);
  const ModelFile file =
      write_and_load(trainer, packed_metadata(task, parameters, config.ipq.centroid_gradient, trainer.plan()),
                     vocabulary, storage, unverified.path(), kernels, comm);
  fault_point("pack.written");
  const Evaluation from_file = task.evaluate_module(file.module(), kernels, comm, trainer.dtype());
  QN_CHECK(agree(from_file, rounded),
           "the packed file evaluates to {}, the model in memory to {}: {} is not written; report this",
           from_file.text(), rounded.text(), out.string());
  fault_point("pack.verified");
  unverified.accept();
  fault_point("pack.accepted");
  const uint64_t bytes = std::filesystem::file_size(out);
  spdlog::info("packed: {} ({} bytes, {}), {:.2f}x smaller than {} in fp32", out.string(),
               group_digits(static_cast<int64_t>(bytes)), format_bytes(bytes),
               4.0 * static_cast<double>(parameters) / static_cast<double>(bytes),
               format_bytes(static_cast<uint64_t>(parameters) * 4));
  const SizeReport sizes = packed_sizes(SafetensorsReader(out));
  if (const uint64_t words = sizes.vocabulary_bytes(); words > 0)
    spdlog::info("{} bytes of it are the vocabulary, with which the file needs no --data (ipq.vocabulary)",
                 group_digits(static_cast<int64_t>(words)));
  spdlog::info("{} {}: {} finetuned, {} rounded to storage, {} from the file", config.valid_split(),
               before.headline().title_or_name(), value_text(before.headline()), value_text(rounded.headline()),
               value_text(from_file.headline()));
  std::vector<MetricField> fields{{"file", out.string()},
                                  {"bytes", static_cast<int64_t>(bytes)},
                                  {"original_bytes", 4 * parameters},
                                  {"bytes_of_groups", bytes_by_group(sizes, file.module())}};
  add_metrics("finetuned_", before, fields);
  add_metrics("rounded_", rounded, fields);
  add_metrics("packed_", from_file, fields);
  return fields;
}

int run_quantize(const QuantizeArguments& a, const Kernels& kernels, Communicator& comm) {
  const RunConfig config = a.config.read();
  if (a.dry_run) {
    if (comm.is_root()) dry_run(a, config);
    return kSuccess;
  }
  const std::filesystem::path out = packed_file(a.out, config);
  ProblemList problems;
  if (comm.is_root()) check_files(problems, config, true, !a.fresh, out);
  problems.fail_if_any();
  const auto watchdog = start_watchdog(comm, config.comm.watchdog_seconds);
  const std::unique_ptr<RunTask> task = make_task(config);
  const PackedVocabulary vocabulary = packed_vocabulary(*task, config.ipq.vocabulary);  // now, because data may go away
  Trainer trainer(config, dump_config(config), *task, comm,
                  {.quantize = true,
                   .resume = !a.fresh,
                   .stop_requested = stop_requested,
                   .abandon_update = stop_requested,
                   .kernels = &kernels});
  if (trainer.run() == Outcome::stopped) {
    spdlog::info("stopped after update {} with {} stages done; saved in {}: run the same command to go on",
                 trainer.update(), trainer.ipq()->stages_done(), config.checkpoint.dir);
    return kStopped;
  }
  end_on_stop_signals(kStopped);  // all is saved
  trainer.pack([&] { return pack(trainer, *task, vocabulary, config, out, kernels, comm); });
  return kSuccess;
}

}  // namespace

Command add_quantize(CLI::App& app) {
  auto a = std::make_shared<QuantizeArguments>();
  a->config.add_to(app);
  a->config.add_from(app);
  app.add_option("-o,--out", a->out, "Packed file to write (default: checkpoint.dir/model.safetensors)");
  app.add_flag("--dry-run", a->dry_run, "Only print weight -> stage, block size, K and the predicted file size");
  app.add_flag("--check", a->check,
               "Only say what is wrong with this run, or what it will take: memory, time, disk. Writes nothing")
      ->excludes("--dry-run");
  app.add_option("--vocab", a->vocabulary, "Dictionary size for --dry-run where there is no data.path")
      ->check(whole_number(1));
  app.add_flag("--json", a->json, "With --dry-run: print one JSON object");
  app.add_flag("--fresh", a->fresh,
               "Start anew even if checkpoint.dir holds a run: its files are moved to a folder discarded-TIME in it");
  a->foreign.add_to(app);
  a->compute.add_to(app);
  app.footer(
      "Each stage: k-means on its weights (section ipq), then ipq.stage_updates updates that train centroids and\n"
      "everything not yet quantized, by ipq.optimizer and ipq.schedule. The configuration that the model was trained\n"
      "with will do. Interrupted runs are resumed, also inside k-means.\n"
      "Example: quantnoise quantize -c configs/wikitext2_small.yaml --from runs/wikitext2_small/checkpoint_last.h5 "
      "\\\n           --set checkpoint.dir=runs/wikitext2_small_ipq\n"
      "Weights of another program, without training: quantnoise quantize --weights FILE --rules RULES.yaml -o OUT");
  return [a](Communicator& comm) {
    if (a->config.help_config) {
      if (comm.is_root()) std::cout << describe_run_config();
      return kSuccess;
    }
    if (a->foreign.given() || a->dry_run) end_on_stop_signals();
    if (a->check)
      return check_run({.config = a->config, .compute = a->compute, .quantize = true, .fresh = a->fresh, .out = a->out},
                       comm);
    const int code = a->compute.run(comm, [&](const Kernels& k) {
      return a->foreign.given() ? a->foreign.run(a->out, a->dry_run, a->json, k, comm) : run_quantize(*a, k, comm);
    });
    log_peak_memory(comm);
    return code;
  };
}

}  // namespace qn::cli
