// A task that is no language model goes through all that a run does: training, stopping and resuming, the best
// checkpoint by a metric that rises, quantization in stages, packing, and evaluation of what was packed.
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>
#include <tuple>
#include <utility>

#include "compress/packed_model.h"
#include "core/file_io.h"
#include "nn/layers/linear.h"
#include "ops/host_access.h"
#include "support/temp_dir.h"
#include "support/tolerance.h"
#include "tasks/run_task.h"
#include "train/checkpoint_file.h"
#include "train/trainer.h"

namespace qn::test {
namespace {

constexpr int64_t kWords = 16, kLength = 6, kWidth = 16, kBatch = 16;

/// The class of a sentence: which half of the vocabulary has more words in it (a tie counts for the second).
struct Sentences {
  std::vector<int32_t> ids, classes;

  Sentences(int64_t count, uint64_t seed) {
    const RandomStream random({.seed = seed, .purpose = Purpose::test});
    for (int64_t s = 0; s < count; ++s) {
      int64_t low = 0;
      for (int64_t t = 0; t < kLength; ++t) {
        ids.push_back(static_cast<int32_t>(random.uniform(static_cast<uint64_t>(s * kLength + t)) * kWords));
        low += ids.back() < kWords / 2 ? 1 : 0;
      }
      classes.push_back(2 * low > kLength ? 0 : 1);
    }
  }
  int64_t count() const { return std::ssize(classes); }
  std::span<const int32_t> words_of(int64_t batch) const {
    return std::span(ids).subspan(static_cast<size_t>(batch * kBatch * kLength), kBatch * kLength);
  }
  std::span<const int32_t> classes_of(int64_t batch) const {
    return std::span(classes).subspan(static_cast<size_t>(batch * kBatch), kBatch);
  }
};

/// One layer of attention; the first word of a sentence tells its class.
class Classifier : public Module {
 public:
  Classifier() {
    const Scope net = root().in("net");
    table_ = net.table("emb.weight", 0, kWords, kWidth, init::normal(0.5));
    fc1_ = Linear::build(net, "fc1", groups::kFfn, 3 * kWidth, kWidth, init::fan_in(kWidth), init::zeros());
    fc2_ = Linear::build(net, "fc2", groups::kFfn, 2, kWidth, init::fan_in(kWidth), init::zeros());
  }
  /// [sentences, 2]
  Var logits(Tape& tape, std::span<const int32_t> ids) {
    const int64_t sentences = std::ssize(ids) / kLength;
    std::vector<int32_t> first;
    for (int64_t s = 0; s < sentences; ++s) first.push_back(static_cast<int32_t>(s * kLength));
    const Var words = fc1_(tape, table_->lookup(tape, ids, 1.0, -1));
    return fc2_(tape, select_rows(tape, attention(tape, words, sentences, kLength, 2, false, {}), first));
  }

 private:
  Weight* table_;
  Linear fc1_, fc2_;
};

class Majority : public RunTask {
 public:
  Module& module() override { return net_; }
  SampleWords sample_words() const override { return {"sentence", "sentences", "sent"}; }
  void open_training() override {}
  std::string describe_data(int64_t) const override { return fmt::format("{} sentences", train_.count()); }
  int64_t next_update(int64_t micro_batches) override {
    before_ = {epoch_, next_};
    if (next_ == batches()) next_ = 0, ++epoch_;
    first_ = next_;
    next_ = std::min(next_ + micro_batches, batches());
    return next_ - first_;
  }
  void put_back_update() override { std::tie(epoch_, next_) = before_; }
  MicroBatch micro_batch(int64_t index, const RandomKey&) override { return batch(first_ + index); }
  MicroBatch example(int64_t i, int64_t count) override { return batch(i * batches() / count); }
  int64_t epoch() const override { return epoch_; }
  bool end_of_epoch() const override { return next_ == batches(); }

  Evaluation evaluate_module(Module& module, const Kernels& kernels, Communicator& comm, DType dtype) override {
    auto& net = dynamic_cast<Classifier&>(module);
    Arena arena(*kernels.memory);
    Tape tape(kernels, arena, dtype, {});
    double loss = 0.0;
    int64_t right = 0;
    for (int64_t b = comm.rank(); b < valid_.count() / kBatch; b += comm.size(), arena.reset()) {
      tape.restart({});
      const Var logits = net.logits(tape, valid_.words_of(b));
      const HostView scores(kernels, logits.value);
      for (int64_t i = 0; i < kBatch; ++i) {
        const float* row = scores.span<float>().data() + 2 * i;
        right += (row[1] > row[0] ? 1 : 0) == valid_.classes_of(b)[static_cast<size_t>(i)] ? 1 : 0;
      }
      const HostView losses(kernels, cross_entropy(tape, logits, valid_.classes_of(b)));
      for (const double value : losses.span<double>()) loss += value;
    }
    const auto share = static_cast<double>(comm.all_reduce_sum_value(right)) / static_cast<double>(valid_.count());
    return {comm.all_reduce_sum_value(loss), valid_.count(), {{"accuracy", share, true}}};
  }

  void save(StateDict& state) const override {
    state.ints["majority/epoch"] = epoch_, state.ints["majority/next"] = next_;
  }
  void load(const StateDict& state) override {
    epoch_ = state.integer("majority/epoch"), next_ = state.integer("majority/next");
  }
  void check_weights(const StateDict&) const override {}
  PackedMetadata packed_metadata() const override { return {{"model", "type: majority\n"}}; }
  EvalReport score_data(const EvalConfig&, const Kernels&, Communicator&, DType) override { return {}; }

 private:
  int64_t batches() const { return train_.count() / kBatch; }
  MicroBatch batch(int64_t i) {
    return {[this, i](Tape& tape) {
              return cross_entropy(tape, net_.logits(tape, train_.words_of(i)), train_.classes_of(i));
            },
            kBatch};
  }

  const Sentences train_{640, 1}, valid_{160, 2};
  Classifier net_;
  int64_t epoch_ = 1, first_ = 0, next_ = 0;
  std::pair<int64_t, int64_t> before_;
};

std::string text_of_file(const std::filesystem::path& path) {
  const std::vector<std::byte> bytes = read_file_bytes(path);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class OtherTask : public testing::Test {
 protected:
  RunConfig config(const std::string& name) const {
    RunConfig c;
    c.quant_noise = {.pq = 0.1, .block_size = 4, .groups = {"paper"}};
    c.optimizer.name = OptimizerKind::adam;
    c.schedule.lr = 0.02;
    c.train.micro_batches = 4;
    c.train.max_updates = 60;
    c.train.validate_every_updates = 30;
    c.ipq.stages = {"net\\.fc1", "net\\.emb"};
    c.ipq.updates_per_stage = 4;
    c.ipq.kmeans_iterations = 4;
    c.checkpoint.dir = (dir_ / name).string();
    return c;
  }
  /// To the end, or until the trainer has asked `stop` times whether to stop.
  void run(Majority& task, const RunConfig& c, bool quantize, int stop = 0,
           const std::function<void(Trainer&)>& then = {}) {
    int asked = 0;
    Trainer trainer(c, dump_config(c), task, *comm_,
                    {.quantize = quantize, .resume = true, .stop_requested = [&] { return ++asked == stop; }});
    EXPECT_EQ(trainer.run(), stop > 0 ? Outcome::stopped : Outcome::finished);
    if (then) then(trainer);
  }
  static std::vector<float> values(Majority& task) {
    const Tensor all = task.module().parameters().values();
    return {all.span<float>().begin(), all.span<float>().end()};
  }

  const TempDir dir_;
  std::unique_ptr<Communicator> comm_ = make_local_communicator();
};

TEST_F(OtherTask, TrainsResumesQuantizesAndPacks) {
  Majority dense, stopped, resumed;
  run(dense, config("dense"), false);
  run(stopped, config("resumed"), false, 23);
  run(resumed, config("resumed"), false);
  EXPECT_EQ(values(resumed), values(dense));
  std::string metrics;  // of updates and validations; the configuration stands there, too
  std::istringstream lines(text_of_file(dir_ / "dense" / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);)
    if (line.find(R"("kind":"train")") != line.npos || line.find(R"("kind":"valid")") != line.npos) metrics += line;
  EXPECT_NE(metrics.find("\"sentences\":64"), std::string::npos) << "an update has 4 batches of 16";
  EXPECT_NE(metrics.find("\"sentences\":160"), std::string::npos) << "as validation has";
  for (const char* other : {"tokens", "ppl"}) EXPECT_EQ(metrics.find(other), std::string::npos) << other;
  const Evaluation trained = dense.evaluate(cpu_kernels(), *comm_, DType::f32);
  EXPECT_GT(trained.at("accuracy"), 0.9);
  EXPECT_GE(load_state(dir_ / "dense" / "checkpoint_last.h5").real("best_loss"), trained.at("accuracy"))
      << "the best is the highest";

  RunConfig c = config("straight");
  c.quant_noise.pq = 0.0;
  c.checkpoint.init_from = (dir_ / "dense" / "checkpoint_last.h5").string();
  Majority straight, half, whole;
  run(straight, c, true);
  c.checkpoint.dir = (dir_ / "ipq").string();
  run(half, c, true, 11);
  run(whole, c, true, 0, [&](Trainer& trainer) {
    EXPECT_EQ(values(whole), values(straight));
    trainer.round_weights({});
    write_packed(dir_ / "packed.safetensors", whole.module(), whole.packed_metadata(), {});
    Classifier packed;
    packed.allocate(DType::f32, cpu_kernels());
    load_packed(packed, dir_ / "packed.safetensors");
    const Evaluation from_file = whole.evaluate_module(packed, cpu_kernels(), *comm_, DType::f32);
    EXPECT_TRUE(agree(from_file, trainer.validate_now()));
    EXPECT_TRUE(close(from_file.loss, trainer.validate_now().loss, kSummationTolerance));
    Evaluation other = from_file;
    other.metrics[0].value += 1e-4;
    EXPECT_FALSE(agree(other, from_file));
    EXPECT_GT(from_file.at("accuracy"), 0.8);
    EXPECT_EQ(whole.module().weights().find("net.emb.weight")->dense(), nullptr);
  });
}

}  // namespace
}  // namespace qn::test
