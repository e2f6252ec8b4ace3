#include "tiny_run.h"

#include <fstream>

#include "data/preprocess.h"
#include "ops/host_access.h"
#include "quant/quantizer.h"

namespace qn::test {
namespace {

/// Lines of words w0..w63 with Zipf-like frequencies in which each word prefers a few successors.
void write_text(const std::filesystem::path& path, int lines, uint64_t seed) {
  std::ofstream out(path);
  const RandomStream stream({.seed = seed, .purpose = Purpose::test});
  uint64_t draw = 0;
  int word = 0;
  for (int line = 0; line < lines; ++line) {
    for (int i = 0; i < 12; ++i) {
      const double u = stream.uniform(draw++), v = stream.uniform(draw++);
      word = u < 0.6 ? (word * 5 + 3) % 64 : static_cast<int>(64 * v * v);
      out << 'w' << word << ' ';
    }
    out << '\n';
  }
}

}  // namespace

void prepare_tiny_corpus(const std::filesystem::path& dir) {
  write_text(dir / "train.txt", 300, 1);
  write_text(dir / "valid.txt", 40, 2);
  write_text(dir / "test.txt", 40, 3);
  prepare({.train = dir / "train.txt",
           .valid = {dir / "valid.txt"},
           .test = {dir / "test.txt"},
           .destdir = dir / "data",
           .limits = {},
           .srcdict = {}});
}

RunConfig tiny_config(const std::filesystem::path& dir, const std::string& name) {
  RunConfig c;
  c.model.layers = 2;
  c.model.embed_dim = 32;
  c.model.ffn_dim = 64;
  c.model.heads = 2;
  c.model.dropout = c.model.attention_dropout = c.model.activation_dropout = 0.1;
  c.model.prenorm = true;
  c.model.adaptive = {.cutoffs = {20, 44},
                      .factor = 2.0,
                      .dropout = 0.1,
                      .input = true,
                      .softmax = true,
                      .tie_weights = true,
                      .tie_projections = true};
  c.data.path = (dir / "data").string();
  c.data.tokens_per_sample = 24;
  c.data.max_tokens = 96;
  c.quant_noise = {.pq = 0.2, .block_size = 4, .groups = {"paper"}};
  c.optimizer.momentum = 0.9;
  c.optimizer.clip_norm = 0.5;
  c.schedule = {.name = Schedule::cosine,
                .lr = 0.1,
                .warmup_updates = 3,
                .warmup_init_lr = 1e-3,
                .min_lr = 1e-3,
                .period_updates = 20,
                .t_mult = 1.0,
                .lr_shrink = 1.0,
                .total_updates = {},
                .end_lr = 0.0,
                .power = 1.0};
  c.train.micro_batches = 4;
  c.train.max_updates = 12;
  c.train.validate_every_updates = 6;
  c.checkpoint.dir = (dir / name).string();
  return c;
}

RunConfig tiny_ipq_config(const std::filesystem::path& dir, const std::string& name,
                          const std::filesystem::path& from) {
  RunConfig c = tiny_config(dir, name);
  c.checkpoint.init_from = from.string();
  c.schedule.lr = 0.02;
  c.schedule.warmup_updates = 0;
  c.ipq.updates_per_stage = 4;
  c.ipq.kmeans_iterations = 6;
  return c;
}

namespace {
PackedMetadata metadata_of(TinyTrainer& trainer, const RunConfig& config) {
  return packed_metadata(trainer.task(), trainer.original_parameters(), config.ipq.centroid_gradient, trainer.plan());
}
PackedMetadata metadata_of(TaskTrainer& trainer, const RunConfig& config) {
  return packed_metadata(trainer.task(), trainer->original_parameters(), config.ipq.centroid_gradient, trainer->plan());
}
}  // namespace

uint64_t write_packed_file(const std::filesystem::path& path, TinyTrainer& trainer, const RunConfig& config) {
  const PackedVocabulary vocabulary = packed_vocabulary(trainer.task(), config.ipq.vocabulary);
  return write_packed(path, trainer.model(), metadata_of(trainer, config), packed_storage(config.ipq),
                      vocabulary.tensors());
}

uint64_t write_packed_file(const std::filesystem::path& path, TaskTrainer& trainer, const RunConfig& config) {
  const PackedVocabulary vocabulary = packed_vocabulary(trainer.task(), config.ipq.vocabulary);
  return write_packed(path, trainer->module(), metadata_of(trainer, config), packed_storage(config.ipq),
                      vocabulary.tensors());
}

uint64_t predicted_bytes(TaskTrainer& trainer, const RunConfig& config) {
  const PackedVocabulary vocabulary = packed_vocabulary(trainer.task(), config.ipq.vocabulary);
  return predict_packed_sizes(make_task(config)->module(), trainer->plan(), metadata_of(trainer, config),
                              vocabulary.tensors())
      .total_bytes();
}

uint64_t predicted_bytes(TinyTrainer& trainer, const RunConfig& config) {
  const auto fresh = preview_task(config, trainer.corpus().dictionary().size());
  const PackedVocabulary vocabulary = packed_vocabulary(trainer.task(), config.ipq.vocabulary);
  return predict_packed_sizes(fresh->module(), trainer.plan(), metadata_of(trainer, config), vocabulary.tensors())
      .total_bytes();
}

std::function<bool()> stop_at(int n) {
  return [n, asked = std::make_shared<int>(0)] { return ++*asked == n; };
}

std::vector<float> parameter_values(Module& model) {
  std::vector<float> values;
  for (const auto& p : model.parameters().all()) {
    const HostView view(model.parameters().kernels(), p->value);
    values.insert(values.end(), view.span<float>().begin(), view.span<float>().end());
  }
  return values;
}

std::vector<uint16_t> all_codes(const Module& model) {
  std::vector<uint16_t> codes;
  for (const auto& w : model.weights().all())
    if (const QuantizedTensor* tensor = w->representation().quantized())
      codes.insert(codes.end(), tensor->codes.begin(), tensor->codes.end());
  return codes;
}

}  // namespace qn::test
