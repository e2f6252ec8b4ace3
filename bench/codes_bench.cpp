// A language model from a packed file: one token at a time and long texts, straight from codes, decoded, or dense; and
// the products of its weights alone, beside dense ones.
#include <oneapi/dnnl/dnnl.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <functional>
#include <limits>

#include "bench/program.h"
#include "bench/synthetic.h"
#include "cli/choice_option.h"
#include "compress/coded_representation.h"
#include "core/random.h"
#include "models/lm_tokens.h"
#include "ops/cpu/codes_variants.h"
#include "ops/device.h"
#include "tasks/language_modeling.h"
#include "tasks/model_file.h"
#include "tasks/run.h"
#include "train/device.h"
#include "train/precision.h"

namespace {

using namespace qn;
using namespace qn::bench;

struct Options {
  CommonOptions common;
  std::string config, file, write, held = "codes", simd, quantizer = "pq block_size=8 n_centroids=256";
  std::vector<std::string> overrides;
  int64_t vocabulary = 267744, repeats = 20, text = 0, products = 0;
  DeviceKind device = DeviceKind::cpu;
  Precision precision = Precision::fp32;
  DType dtype = DType::f32;  // what the precision is here

  void add_to(CLI::App& app) {
    common.add_to(app);
    app.add_option("file", file, "Packed file of a language model");
    app.add_option("--write", write, "Write such a file, of random codes, and end");
    app.add_option("-c,--config", config, "With --write: the model");
    app.add_option("-s,--set", overrides, "With --write: override one key")->take_all()->allow_extra_args(false);
    app.add_option("--vocabulary", vocabulary, "With --write: size of its dictionary")->capture_default_str();
    app.add_option("--quantizer", quantizer, "With --write: of all weights")->capture_default_str();
    app.add_option("--weights", held, "codes; decoded: in every pass; dense: fp32 in memory, as before compression")
        ->check(CLI::IsMember({"codes", "decoded", "dense"}))
        ->capture_default_str();
    app.add_option("--simd", simd, "avx512vbmi, avx512, avx2 or baseline: at most these instructions");
    app.add_option("--text", text, "Score a text of so many tokens in one batch, instead of one token at a time");
    app.add_option("--products", products,
                   "Products of all weights with so many rows of input alone, from codes and dense by turns");
    cli::add_choice(app, "--device", device, "cpu or cuda");
    cli::add_choice(app, "--precision", precision, "Of activations, and of dense products");
    app.add_option("--repeats", repeats, "The best of so many is reported")->capture_default_str();
  }
};

/// Random codes, and centroids of the size that values of a trained model have.
QuantizedTensor random_codes(const Weight& weight, const Quantizer& quantizer, uint64_t id) {
  const QuantizedLayout layout = quantizer.layout(weight.rows(), weight.cols());
  const RandomStream random({.seed = 1, .purpose = Purpose::test, .id = id});
  QuantizedTensor tensor{.quantizer = quantizer.shared_from_this(), .rows = weight.rows(), .cols = weight.cols()};
  uint64_t state = id + 1;
  for (int64_t i = 0; i < layout.codes; ++i) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    tensor.codes.push_back(static_cast<uint16_t>((state >> 33) % static_cast<uint64_t>(layout.levels)));
  }
  const double size = 1.0 / std::sqrt(static_cast<double>(weight.cols()));
  for (const SideLayout& side : layout.side) {
    SideValues values{side.name, side.shape, {}};
    for (int64_t i = 0; i < side.shape.elements(); ++i)
      values.values.push_back(side.name == "scale" ? static_cast<float>(size / 64.0)
                              : side.name == "zero_point"
                                  ? static_cast<float>(layout.levels / 2)
                                  : static_cast<float>(size * random.normal(static_cast<uint64_t>(i))));
    tensor.values.push_back(std::move(values));
  }
  return tensor;
}

void write_file(const Options& o) {
  const auto config = read_config<RunConfig>(load_config_tree(o.config, o.overrides));
  const auto task = preview_task(config, o.vocabulary);
  const auto quantizer = quantizer_from_text(o.quantizer, "--quantizer: ");
  PackedTensors tensors;
  const int64_t parameters = task->module().parameters().elements();
  PackedMetadata metadata = task->packed_metadata();
  metadata["parameters"] = std::to_string(parameters);
  metadata["centroid_gradient"] = "sum";
  metadata["format"] = "quantnoise-packed";
  metadata["version"] = "3";
  for (const auto& [key, value] : metadata) tensors.set_metadata(key, value);
  uint64_t id = 0;
  for (const auto& weight : task->module().weights().all())
    if (weight->cols() % 8 == 0 && weight->rows() > 1)
      tensors.add_quantized(weight->name(), random_codes(*weight, *quantizer, ++id), ValueStorage::f16);
  for (const auto& p : task->module().parameters().all()) {
    const Weight* weight = task->module().weights().find(p->name);
    if (weight != nullptr && weight->cols() % 8 == 0 && weight->rows() > 1) continue;
    const bool ones = p->init.kind == InitRule::Kind::ones;
    std::vector<float> values(static_cast<size_t>(p->shape.elements()), ones ? 1.0f : 0.0f);
    tensors.add_values(p->name, p->shape, values, ValueStorage::f16);
  }
  print_report({{"parameters", parameters}, {"bytes", tensors.write(o.write)}}, o.common.json);
}

/// The dense model that the file's codes stand for.
std::unique_ptr<RunTask> dense_task(const std::string& path, const Kernels& kernels) {
  const ModelFile from = load_model_file(path, kernels);
  auto task = task_of_packed(SafetensorsReader(path), path);
  task->module().allocate(DType::f32, kernels, false);
  Arena arena(*kernels.memory);
  for (const auto& p : task->module().parameters().all()) {
    Weight* weight = from.module().weights().find(p->name);
    arena.reset();
    Tape tape(kernels, arena, DType::f32, {});
    const Parameter* dense = from.module().parameters().find(p->name);
    kernels.copy(p->value, dense != nullptr ? dense->value : weight->table(tape).value.reshaped(p->shape));
  }
  return task;
}

/// Of every call: seconds, and seconds of the processor, which other programs on the machine hardly change.
struct Seconds {
  std::vector<double> all, processor;
  size_t arena_bytes = 0;  // the most that a call took of the step arena
};
double processor_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}
Seconds timed(int64_t repeats, const std::function<void()>& f) {
  Seconds seconds;
  for (int64_t i = 0; i < repeats; ++i) {
    const double processor = processor_seconds();
    const auto start = std::chrono::steady_clock::now();
    f();
    seconds.all.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    seconds.processor.push_back(processor_seconds() - processor);
  }
  return seconds;
}
double least(const std::vector<double>& values) { return *std::min_element(values.begin(), values.end()); }

Seconds one_by_one(TransformerLm& model, const Options& o, const Kernels& kernels) {
  Arena arena(*kernels.memory, size_t{2} << 20);  // as `generate` does it
  Tape tape(kernels, arena, o.dtype, {});
  LmTokens tokens(model, tape);
  const std::vector<int32_t> ids = zipf_tokens(o.repeats + 4, o.vocabulary, 1);
  constexpr size_t kContext = 16;  // short: keys and values are no matter of weights
  size_t place = 0;
  const auto next = [&] {
    const int32_t parent = place % kContext == 0 ? -1 : 0, one = 1;
    tokens.next({&ids[place], 1}, {&one, 1}, {&parent, 1});
    ++place;
  };
  timed(3, next);  // memory is there now
  Seconds seconds = timed(o.repeats, next);
  seconds.arena_bytes = arena.peak();
  return seconds;
}

Seconds whole_text(TransformerLm& model, const Options& o, const Kernels& kernels) {
  Arena arena(*kernels.memory);
  const std::vector<int32_t> ids = zipf_tokens(o.text + 1, o.vocabulary, 1);
  const std::span<const int32_t> all(ids);
  const auto score = [&] {
    arena.reset();
    Tape tape(kernels, arena, o.dtype, {});
    model.losses(tape, {1, o.text, all.first(all.size() - 1), all.subspan(1)});
    wait_for(kernels);
  };
  timed(1, score);
  Seconds seconds = timed(o.repeats, score);
  seconds.arena_bytes = arena.peak();
  return seconds;
}

/// What products of all weights that are codes are made of.
struct Products {
  std::vector<CodeMatrix> codes;
  std::vector<OwnedTensor> dense;
  OwnedTensor x, y;  ///< as wide as the widest, and zeros
  int64_t rows;
  double dense_bytes = 0.0;

  void from_codes(const Kernels& kernels) const {
    for (const CodeMatrix& w : codes) kernels.matmul_codes({.weight = w, .x = part(x, w.cols), .y = part(y, w.rows)});
  }
  void from_dense(const Kernels& kernels) const {
    for (const OwnedTensor& w : dense) {
      const int64_t n = w.view().rows(), k = w.view().cols();
      kernels.matmul({.dtype = x.view().dtype,
                      .dtype_c = x.view().dtype,
                      .transpose_b = true,
                      .m = rows,
                      .n = n,
                      .k = k,
                      .a = x.view().data,
                      .lda = k,
                      .b = w.view().data,
                      .ldb = k,
                      .c = y.view().data,
                      .ldc = n});
    }
  }
  Tensor part(const OwnedTensor& of, int64_t cols) const { return {of.view().data, {rows, cols}, of.view().dtype}; }
};

Products products_of(const Module& module, const Options& o, const Kernels& kernels) {
  Products products{.codes = {}, .dense = {}, .x = {}, .y = {}, .rows = o.products};
  int64_t widest = 0, longest = 0;
  for (const auto& weight : module.weights().all()) {
    const auto* coded = dynamic_cast<const CodedRepresentation*>(&weight->representation());
    if (coded == nullptr) continue;
    const CodeMatrix& w = products.codes.emplace_back(coded->weight().view());
    kernels.decode_codes(products.dense.emplace_back(Shape{w.rows, w.cols}, o.dtype, *kernels.memory).view(), w);
    products.dense_bytes += static_cast<double>(products.dense.back().view().bytes());
    widest = std::max(widest, w.cols);
    longest = std::max(longest, w.rows);
  }
  QN_CHECK(!products.codes.empty(), "{} has no weights that stay codes", o.file);
  products.x = random_tensor(kernels, {o.products, widest}, o.dtype);
  products.y = OwnedTensor({o.products, longest}, o.dtype, *kernels.memory);
  return products;
}

/// Calls that are queued as one, where the device can: what it does between them counts, what the host does does not.
class Queued {
 public:
  Queued(const Kernels& kernels, std::function<void()> calls) : kernels_(kernels), calls_(std::move(calls)) {
    calls_();  // memory is there now
    if (kernels.graphs == nullptr) return;
    kernels.graphs->begin();
    calls_();
    graph_ = kernels.graphs->end();
  }
  ~Queued() {
    if (graph_ != nullptr) kernels_.graphs->release(graph_);
  }
  Queued(const Queued&) = delete;
  Queued& operator=(const Queued&) = delete;

  double seconds() const {
    const int times = graph_ != nullptr ? 10 : 1;
    wait_for(kernels_);
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < times; ++i) graph_ != nullptr ? kernels_.graphs->launch(graph_, 0, 0) : calls_();
    wait_for(kernels_);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / times;
  }

 private:
  const Kernels& kernels_;
  std::function<void()> calls_;
  void* graph_ = nullptr;
};

void run_products(const Module& module, const Options& o, const Kernels& kernels) {
  const Products products = products_of(module, o, kernels);
  const Queued codes(kernels, [&] { products.from_codes(kernels); });
  const Queued dense(kernels, [&] { products.from_dense(kernels); });
  std::vector<double> from_codes, from_dense;
  for (int64_t i = 0; i < o.repeats; ++i) {
    from_codes.push_back(codes.seconds());
    from_dense.push_back(dense.seconds());
  }
  double code_bytes = 0.0;
  for (const CodeMatrix& w : products.codes) code_bytes += static_cast<double>(w.rows * w.blocks() * w.bits) / 8.0;
  print_report({{"rows", o.products},
                {"dtype", name_of(o.dtype)},
                {"products", products.codes.size()},
                {"ways", describe_coded(module)},
                {"codes_milliseconds", 1e3 * least(from_codes)},
                {"codes_median_milliseconds", 1e3 * median(from_codes)},
                {"codes_gbps", code_bytes / least(from_codes) * 1e-9},
                {"dense_milliseconds", 1e3 * least(from_dense)},
                {"dense_median_milliseconds", 1e3 * median(from_dense)},
                {"dense_gbps", products.dense_bytes / least(from_dense) * 1e-9},
                {"speedup", least(from_dense) / least(from_codes)}},
               o.common.json);
}

void run(Options o, Communicator& comm) {
  const Kernels& kernels = kernels_on(o.device, false, comm);
  o.dtype = activation_type(o.precision, kernels, comm);
  set_product_precision(o.precision, kernels);
  for (const cpu::CodesVariant* variant : cpu::codes_variants())
    if (o.simd == variant->name) cpu::use_codes_variant(variant);
  QN_CHECK(o.simd.empty() || o.simd == cpu::codes_variant().name,
           "--simd: '{}' is none of the names in --help, or this processor has no such instructions", o.simd);
  if (o.simd == "avx2") dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx2);
  reset_peak_memory();
  const int64_t before = resident_memory();
  std::unique_ptr<RunTask> task;
  if (o.held == "dense")
    task = dense_task(o.file, kernels);
  else
    task = load_model_file(o.file, kernels, {}, value_named<HeldWeights>(o.held, "--weights")).task;
  auto* model = dynamic_cast<TransformerLm*>(&task->module());
  QN_CHECK(model != nullptr, "{} holds no language model", o.file);
  o.vocabulary = std::stoll(task->packed_metadata().at("vocabulary"));
  if (o.products > 0) return run_products(*model, o, kernels);
  const int64_t loaded = resident_memory(), peak_loading = peak_memory();
  reset_peak_memory();
  const Seconds seconds = o.text > 0 ? whole_text(*model, o, kernels) : one_by_one(*model, o, kernels);
  const double best = least(seconds.all);
  const auto mib = [](int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); };
  Json json{{"weights", o.held},
            {"device", name_of(o.device)},
            {"dtype", name_of(o.dtype)},
            {"simd", cpu::codes_variant().name},
            {"ways", describe_coded(*model)},
            {"milliseconds", 1e3 * best},
            {"median_milliseconds", 1e3 * median(seconds.all)},
            {"processor_milliseconds", 1e3 * least(seconds.processor)},
            {"tokens_per_second", static_cast<double>(std::max<int64_t>(o.text, 1)) / best},
            {"file_mib", mib(static_cast<int64_t>(std::filesystem::file_size(o.file)))},
            {"model_mib", mib(loaded - before)},
            {"process_mib", mib(loaded)},
            {"peak_loading_mib", mib(peak_loading)},
            {"activations_mib", mib(static_cast<int64_t>(seconds.arena_bytes))},
            {"peak_mib", mib(peak_memory())}};
  if (const auto memory = Device(kernels).memory())
    json["gpu_used_mib"] = mib(static_cast<int64_t>(memory->total - memory->free));
  print_report(json, o.common.json);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("A language model from a packed file: one token at a time, or long texts");
  Options options;
  options.add_to(app);
  return run_program(app, options.common, argc, argv, [&](Communicator& comm) {
    if (!options.write.empty()) return write_file(options);
    QN_CHECK(!options.file.empty(), "name a packed file; --write makes one");
    run(options, comm);
  });
}
