// A program with a model of its own has quantnoise train it with noise, compress it in stages and run the packed file.
// Its model is a classifier by nearest mean, whose matrix is in the program's memory; a perceptron learns beside it.
//
//   wrap_your_model [FOLDER]     MNIST's unpacked files are there; without it the images are made up
#include <fmt/core.h>
#include <quantnoise/quantnoise.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <span>

#include "digits.h"

namespace {

/// The matrix that the program has anyway: the mean image of each class, less that of all, [kClasses, kPixels].
std::vector<float> mean_images(const Images& images) {
  std::vector<float> means(kClasses * kPixels);
  for (int64_t i = 0; i < images.count(); ++i) {
    const int64_t label = images.labels[static_cast<size_t>(i)];
    for (int64_t c = 0; c < kClasses; ++c) {
      const float share = ((c == label ? 1.0f : 0.0f) - 1.0f / kClasses) / static_cast<float>(images.count());
      for (int64_t j = 0; j < kPixels; ++j)
        means[static_cast<size_t>(c * kPixels + j)] += share * images.pixels[static_cast<size_t>(i * kPixels + j)];
    }
  }
  return means;
}

class Net : public qn::Module {
 public:
  Net() {
    using namespace qn::init;
    const char* group = qn::groups::kFfn;  // noise is for groups of weights
    const qn::Scope perceptron = root().in("perceptron");
    fc1_ = qn::Linear::build(perceptron, "fc1", group, kHidden, kPixels, fan_in(kPixels), zeros());
    fc2_ = qn::Linear::build(perceptron, "fc2", group, kClasses, kHidden, zeros(), zeros());
    means_ = root().linear("means.weight", group, kClasses, kPixels, zeros());
    allocate(qn::DType::f32, qn::cpu_kernels());
    parameters().initialize(/*seed=*/1);
  }
  /// Values that are not drawn but come from elsewhere.
  void take_means(std::span<const float> means) { parameters().set_values(*means_->dense(), means); }

  /// [rows, kClasses] for rows of kPixels.
  qn::Var logits(qn::Tape& tape, std::span<const float> pixels) const {
    const qn::Var x = qn::input(tape, pixels, {std::ssize(pixels) / kPixels, kPixels});
    const qn::Var hidden = qn::activation_dropout(tape, fc1_(tape, x), {}, qn::Activation::relu, {});
    return qn::residual_dropout(tape, means_->linear(tape, x), fc2_(tape, hidden), {}, {});
  }

 private:
  static constexpr int64_t kHidden = 256;
  qn::Linear fc1_, fc2_;
  qn::Weight* means_;
};

void train(Net& net, const Images& images, int64_t updates, double lr) {
  constexpr int64_t kBatch = 100;
  const auto alone = qn::make_local_communicator();
  const auto adam = qn::make_optimizer({.name = qn::OptimizerKind::adam}, net.parameters(), lr);
  qn::UpdateRunner runner(net, qn::cpu_kernels(), *alone, {});
  for (int64_t n = 0; n < updates; ++n) {
    const auto begin = static_cast<size_t>(n * kBatch % (images.count() - kBatch + 1));
    const auto pixels = std::span(images.pixels).subspan(begin * kPixels, kBatch * kPixels);
    const auto labels = std::span(images.labels).subspan(begin, kBatch);
    const auto losses = [&](qn::Tape& tape) { return qn::cross_entropy(tape, net.logits(tape, pixels), labels); };
    const auto micro_batch = [&](int64_t) { return qn::MicroBatch{losses, kBatch}; };
    runner.run(n, 1, micro_batch, *adam, lr);
  }
}

std::vector<float> outputs(const Net& net, const Images& images) {
  qn::Arena arena;
  qn::Tape tape(qn::cpu_kernels(), arena, qn::DType::f32, {});
  const qn::Tensor y = net.logits(tape, images.pixels).value;
  return {y.span<float>().begin(), y.span<float>().end()};
}

/// But for the order of sums: a packed network is multiplied straight from its codes.
bool alike(const std::vector<float>& a, const std::vector<float>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](float x, float y) { return std::abs(x - y) <= 1e-4f * (1.0f + std::abs(y)); });
}

double accuracy(const Net& net, const Images& images) {
  const std::vector<float> y = outputs(net, images);
  int64_t right = 0;
  for (int64_t i = 0; i < images.count(); ++i) {
    const auto row = y.begin() + i * kClasses;
    right += std::max_element(row, row + kClasses) - row == images.labels[static_cast<size_t>(i)];
  }
  return static_cast<double>(right) / static_cast<double>(images.count());
}

int run(const std::filesystem::path& folder) {
  const Digits digits = folder.empty() ? make_digits(6000, 1000) : read_mnist(folder);
  Net net;
  net.take_means(mean_images(digits.train));
  fmt::print("accuracy of the means alone: {:.4f}\n", accuracy(net, digits.test));

  // Product quantization of the large matrix first, 8 bits per element for the small ones then.
  qn::QuantizationPlan plan = qn::dense_plan(qn::infos_of(net.weights()));
  plan.quantize("perceptron.fc1.weight", 0, qn::make_quantizer("pq", {{"block_size", "8"}, {"n_centroids", "256"}}));
  for (const char* name : {"perceptron.fc2.weight", "means.weight"})
    plan.quantize(name, 1, qn::make_quantizer("int", {{"bits", "8"}, {"range", "channel"}}));
  qn::plan_noise(plan, {.pq = 0.1, .block_size = 8});
  qn::apply_noise(net.weights(), plan);
  train(net, digits.train, 1200, 1e-3);
  fmt::print("accuracy dense: {:.4f}\n", accuracy(net, digits.test));

  const qn::SizeReport sizes = qn::predict_packed_sizes(net, plan, {});
  fmt::print("{}", sizes.to_table());
  const auto alone = qn::make_local_communicator();
  qn::IpqMachine stages({}, net, *alone, /*seed=*/1, plan);
  while (stages.stages_done() < stages.stages()) {
    stages.run_stage();
    train(net, digits.train, 100, 3e-4);
    fmt::print("accuracy after stage {}: {:.4f}\n", stages.stages_done(), accuracy(net, digits.test));
  }
  qn::round_to_storage(net, plan.storage);
  const std::filesystem::path file = "wrapped.safetensors";
  const uint64_t bytes = qn::write_packed(file, net, {}, plan.storage);

  Net packed;
  qn::load_packed(packed, file);
  fmt::print("accuracy packed: {:.4f}\n", accuracy(packed, digits.test));
  fmt::print("bytes: {} dense, {} predicted, {} packed\n", sizes.original_bytes(), sizes.total_bytes(), bytes);
  const bool same = alike(outputs(packed, digits.test), outputs(net, digits.test));
  fmt::print("the file computes {}\n", same ? "the same" : "something else");
  return same ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    qn::init_logging(0, 1, "warn");
    return run(argc > 1 ? argv[1] : "");
  } catch (const std::exception& error) {
    fmt::print(stderr, "wrap_your_model: {}\n", error.what());
    return 1;
  }
}
