// Files: packing a quantized model, loading it, writing and reading a checkpoint, opening a corpus. Everything happens
// in a folder of its own, with warm page caches unless the folder's file system has none.
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>

#include "bench/program.h"
#include "bench/synthetic.h"
#include "compress/ipq.h"
#include "compress/representation.h"
#include "core/error.h"
#include "core/file_descriptor.h"
#include "core/text.h"
#include "data/dictionary.h"
#include "data/token_stream.h"
#include "tasks/corpus.h"
#include "tasks/model_file.h"
#include "tasks/run.h"
#include "train/checkpoint_file.h"
#include "train/divergence.h"
#include "train/optimizer.h"

namespace {

namespace fs = std::filesystem;
using namespace qn;
using namespace qn::bench;

struct Options {
  CommonOptions common;
  std::string config, folder;
  std::vector<std::string> overrides;
  std::vector<std::string> parts{"packed", "checkpoint", "corpus"};
  int64_t vocabulary = 33280, corpus_mb = 100, repeats = 3;

  void add_to(CLI::App& app) {
    common.add_to(app);
    app.add_option("-c,--config", config, "YAML configuration of the model (see configs/)");
    app.add_option("-s,--set", overrides, "Override one key (repeatable)")->take_all()->allow_extra_args(false);
    app.add_option("--parts", parts, "What to measure")
        ->delimiter(',')
        ->check(CLI::IsMember({"packed", "checkpoint", "corpus"}))
        ->capture_default_str();
    app.add_option("--dir", folder, "Existing folder for the files (default: the system's temporary folder)");
    app.add_option("--vocabulary", vocabulary, "Size of the dictionary")->capture_default_str();
    app.add_option("--corpus-mb", corpus_mb, "Size of the training text's .bin file")->capture_default_str();
    app.add_option("--repeats", repeats, "Of each step; the median time is reported")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
  }
  bool has(const char* part) const { return std::find(parts.begin(), parts.end(), part) != parts.end(); }
  RunConfig read() const {
    return read_config<RunConfig>(config.empty() ? config_tree_from_text("", "defaults", overrides)
                                                 : load_config_tree(config, overrides));
  }
};

/// A folder that goes away with the object.
class ScratchFolder {
 public:
  explicit ScratchFolder(const std::string& parent)
      : path_((parent.empty() ? fs::temp_directory_path() : fs::path(parent)) /
              fmt::format("quantnoise-file-bench-{}", getpid())) {
    fs::create_directory(path_);
  }
  ~ScratchFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  fs::path operator/(const char* name) const { return path_ / name; }

 private:
  fs::path path_;
};

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Median time of `work` and the memory it needs beyond what is there before, for a file or folder of `bytes()`.
Json timed(int64_t repeats, const std::function<uintmax_t()>& bytes, const std::function<void()>& work) {
  std::vector<double> seconds;
  double extra = 0.0;
  for (int64_t i = 0; i < repeats; ++i) {
    reset_peak_memory();
    const int64_t before = resident_memory();
    seconds.push_back(seconds_of(work));
    extra = std::max(extra, static_cast<double>(peak_memory() - before));
  }
  const auto size = static_cast<double>(bytes());
  return {{"seconds", median(seconds)},
          {"file_mb", size * 1e-6},
          {"mb_per_second", size * 1e-6 / median(seconds)},
          {"extra_peak_mib", extra / 1048576.0}};
}

std::unique_ptr<RunTask> new_task(const RunConfig& config, int64_t vocabulary) {
  auto task = preview_task(config, vocabulary);
  ParameterStore& parameters = task->module().parameters();
  parameters.allocate(DType::f32);
  parameters.initialize(static_cast<uint64_t>(config.seed));
  return task;
}

/// Gives every planned weight random codes: a packed file costs the same whatever the codes are.
void quantize_randomly(Module& model, const QuantizationPlan& plan) {
  RepresentationSwap swap(model, CentroidGradient::sum);
  for (const WeightPlan& planned : plan.quantized()) {
    const QuantizedLayout layout = planned.quantizer->layout(planned.rows, planned.cols);
    QuantizedTensor tensor{.quantizer = planned.quantizer, .rows = planned.rows, .cols = planned.cols};
    for (int64_t i = 0; i < layout.codes; ++i)
      tensor.codes.push_back(
          static_cast<uint16_t>((static_cast<uint64_t>(i) * 2654435761U >> 7) % static_cast<uint64_t>(layout.levels)));
    for (const SideLayout& side : layout.side)
      tensor.values.push_back({side.name, side.shape, normal_values(side.shape.elements(), 1)});
    Weight* weight = model.weights().find(planned.name);
    QN_ASSERT(weight != nullptr, "{}", planned.name);
    swap.replace(*weight, std::move(tensor));
  }
  swap.finish();
}

Json measure_packed(const RunConfig& config, const Options& options, const ScratchFolder& folder) {
  const auto task = new_task(config, options.vocabulary);
  Module& model = task->module();
  const QuantizationPlan plan = make_run_plan(model, config.quant_noise, &config.ipq);
  const PackedMetadata metadata =
      packed_metadata(*task, model.parameters().elements(), config.ipq.centroid_gradient, plan);
  quantize_randomly(model, plan);
  const fs::path path = folder / "model.safetensors";
  const auto size = [&] { return fs::file_size(path); };
  Json json;
  json["pack"] = timed(options.repeats, size, [&] { write_packed(path, model, metadata, packed_storage(config.ipq)); });
  json["load_packed"] = timed(options.repeats, size, [&] { load_model_file(path); });
  return json;
}

/// What the trainer saves, as far as loading a model looks at it.
StateDict checkpoint_of(const RunConfig& config, Module& model, const Optimizer& optimizer, int64_t vocabulary) {
  StateDict state;
  save_module(model, state);
  optimizer.save(model.parameters(), state);
  state.texts["config"] = dump_config(config);
  state.texts["dictionary_hash"] = hex64(0);
  state.ints["vocabulary"] = vocabulary;
  state.ints["update"] = 0;
  return state;
}

/// What the disk does with as many bytes that are no checkpoint, in a new file and up to the sync.
void write_plainly(const fs::path& path, int64_t bytes) {
  static const std::vector<std::byte> piece(size_t{16} << 20, std::byte{1});
  const FileDescriptor file(path, O_WRONLY | O_CREAT | O_TRUNC, "write");
  for (size_t done = 0; done < static_cast<size_t>(bytes); done += piece.size())
    file.write(done, std::span(piece).first(std::min(piece.size(), static_cast<size_t>(bytes) - done)));
  file.sync();
}

/// Snapshot, checkpoint and the disk's own rate in turns. The first snapshot has new memory to get.
Json measure_checkpoint(const RunConfig& config, const Options& options, const ScratchFolder& folder) {
  const auto task = new_task(config, options.vocabulary);
  const auto optimizer = make_optimizer(config.optimizer, task->module().parameters(), config.schedule.lr);
  const fs::path path = folder / "checkpoint.h5", plain = folder / "plain";
  std::vector<double> snapshot, save, disk;
  double first_snapshot = 0.0;
  for (int64_t i = 0; i <= options.repeats; ++i) {
    StateDict state;
    const double seconds = seconds_of([&] {
      state = checkpoint_of(config, task->module(), *optimizer, options.vocabulary);
      check_finite(state);
    });
    i == 0 ? void(first_snapshot = seconds) : snapshot.push_back(seconds);
    if (i == 0) continue;
    save.push_back(seconds_of([&] { save_state(path, state); }));
    const auto bytes = static_cast<int64_t>(fs::file_size(path));
    disk.push_back(seconds_of([&] { write_plainly(plain, bytes); }));
    fs::remove(plain);
  }
  const auto size = [&] { return fs::file_size(path); };
  const double megabytes = static_cast<double>(size()) * 1e-6;
  Json json;
  json["save_checkpoint"] = {{"file_mb", megabytes},
                             {"seconds", median(save)},
                             {"mb_per_second", megabytes / median(save)},
                             {"disk_mb_per_second", megabytes / median(disk)},
                             {"share_of_disk", median(disk) / median(save)},
                             {"snapshot_seconds", median(snapshot)},
                             {"first_snapshot_seconds", first_snapshot},
                             {"snapshot_share_of_save", median(snapshot) / median(save)}};
  json["load_checkpoint"] = timed(options.repeats, size, [&] { load_model_file(path); });
  return json;
}

/// Sentences of about 25 words.
void write_corpus(const fs::path& folder, const Options& options) {
  fs::create_directory(folder);
  Dictionary dictionary;
  for (int64_t i = kSpecialCount; i < options.vocabulary; ++i) dictionary.add(fmt::format("word{}", i));
  dictionary.save(folder / "dict.txt");
  const auto width = static_cast<int64_t>(token_bytes(token_type_for(options.vocabulary)));
  const std::vector<int32_t> ids = zipf_tokens(int64_t{1} << 20, options.vocabulary, 1);
  const auto write = [&](const char* split, int64_t tokens) {
    write_token_stream(folder / split, options.vocabulary, [&](TokenStreamWriter& writer) {
      for (size_t i = 0; writer.tokens() < tokens; i = (i + 1) % ids.size()) {
        writer.add_token(ids[i]);
        if (ids[i] % 25 != 0) continue;
        writer.add_token(kEosId);
        writer.end_sentence();
      }
      writer.add_token(kEosId);
      writer.end_sentence();
    });
  };
  write("train", options.corpus_mb * 1'000'000 / width);
  write("valid", 200'000);
}

Json measure_corpus(RunConfig config, const Options& options, const ScratchFolder& folder) {
  const fs::path data = folder / "data";
  write_corpus(data, options);
  config.data.path = data.string();
  config.data.valid = "valid";
  const auto size = [&] { return fs::file_size(data / "train.bin") + fs::file_size(data / "train.idx"); };
  return timed(options.repeats, size, [&] {
    Corpus corpus(config.data, static_cast<uint64_t>(config.seed));
    corpus.prepare_training(config.data.tokens_per_sample);
  });
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Measures reading and writing of model files and opening a corpus. One process only.");
  Options options;
  options.add_to(app);
  return run_program(app, options.common, argc, argv, [&](Communicator& comm) {
    QN_CHECK(comm.size() == 1, "file_bench runs in one process");
    const RunConfig config = options.read();
    const ScratchFolder folder(options.folder);
    Json report{{"program", "file_bench"}, {"config", options.config}};
    if (options.has("packed")) report.update(measure_packed(config, options, folder));
    if (options.has("checkpoint")) report.update(measure_checkpoint(config, options, folder));
    if (options.has("corpus")) report["open_corpus"] = measure_corpus(config, options, folder);
    print_report(report, options.common.json);
  });
}
