// EfficientNet from the ops alone, on made-up images: forward and backward of B0 (or another size), evaluation of
// lite0. No optimizer and no data; bench/peers/torch_vision.py measures the same in PyTorch.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>

#include "bench/program.h"
#include "cli/choice_option.h"
#include "core/profiler.h"
#include "ops/cuda/backend.h"
#include "ops/device.h"
#include "ops/profiled_kernels.h"
#include "ops/vision.h"

namespace {

using namespace qn;
using namespace qn::bench;

struct Stage {
  int64_t expand, kernel, stride, in, out, repeats;
};
constexpr Stage kStages[] = {{1, 3, 1, 32, 16, 1},  {6, 3, 2, 16, 24, 2},   {6, 5, 2, 24, 40, 2},  {6, 3, 2, 40, 80, 3},
                             {6, 5, 1, 80, 112, 3}, {6, 5, 2, 112, 192, 4}, {6, 3, 1, 192, 320, 1}};

struct Options {
  CommonOptions common;
  DeviceKind device = DeviceKind::cpu;
  int64_t batch = 8, size = 224;
  double width = 1.0, depth = 1.0;
  double seconds = 20.0;
  bool bf16 = false, tf32 = false, profile = false, no_evaluation = false;
};

/// Channels of a wider network: a multiple of 8 that is no more than a tenth less than asked for.
int64_t widened(int64_t channels, double width) {
  const double wanted = static_cast<double>(channels) * width;
  const auto rounded = std::max<int64_t>(8, static_cast<int64_t>(wanted + 4.0) / 8 * 8);
  return static_cast<double>(rounded) < 0.9 * wanted ? rounded + 8 : rounded;
}

/// Parameters are made at their first use and keep their place; gradients of one pass are thrown away.
class Network {
 public:
  Network(const Kernels& kernels, const Options& o, bool lite, bool training, int64_t batch)
      : arena_(*kernels.memory),
        tape_(kernels, arena_, o.bf16 ? DType::bf16 : DType::f32, {}),
        lite_(lite),
        training_(training),
        size_(o.size),
        width_(lite ? 1.0 : o.width),
        depth_(lite ? 1.0 : o.depth) {
    std::vector<float> values(static_cast<size_t>(batch * size_ * size_ * 3));
    for (size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i % 1009));
    const Shape shape{batch, size_, size_, 3};
    const OwnedTensor wide(shape, tape_.parameter_dtype(), *kernels.memory);
    kernels.upload(wide.view().data, values.data(), wide.view().bytes());
    images_ = OwnedTensor(shape, tape_.dtype(), *kernels.memory);
    kernels.copy(images_.view(), wide.view());
    for (int64_t b = 0; b < batch; ++b) labels_.push_back(static_cast<int32_t>(b * 37 % 1000));
  }

  void pass() {
    tape_.restart({.training = training_, .recording = training_, .update = ++passes_});
    arena_.reset();
    next_ = 0;
    Var x = conv_norm({images_.view(), nullptr}, widened(32, width_), 3, 2, 1, act());
    int64_t number = 0, blocks = 0;
    for (const Stage& stage : kStages) blocks += repeats(stage);
    for (const Stage& stage : kStages)
      for (int64_t i = 0; i < repeats(stage); ++i)
        x = block(x, stage, i == 0 ? stage.stride : 1,
                  0.2 * static_cast<double>(number++) / static_cast<double>(blocks));
    x = dropout(tape_, average_pool(tape_, conv_norm(x, widened(1280, width_), 1, 1, 1, act())), {0.2, 1000});
    const Var logits = linear(tape_, x, weight({1000, x.value.cols()}), parameter({1000}, 0.0));
    if (training_) {
      cross_entropy(tape_, logits, labels_, 0.1);
      tape_.backward();
    }
    tape_.k.wait(tape_.k.mark());
  }

 private:
  int64_t repeats(const Stage& stage) const {
    return static_cast<int64_t>(std::ceil(static_cast<double>(stage.repeats) * depth_));
  }
  FusedActivation act() const { return lite_ ? Activation::relu6 : Activation::silu; }

  struct Owned {
    OwnedTensor value, grad;
    GradientSlot slot;
  };
  Var parameter(Shape shape, double value) {
    if (next_ == parameters_.size()) {
      auto made = std::make_unique<Owned>();
      made->value = OwnedTensor(shape, tape_.parameter_dtype(), *tape_.k.memory);
      made->grad = OwnedTensor(shape, tape_.parameter_dtype(), *tape_.k.memory);
      std::vector<float> values(static_cast<size_t>(shape.elements()), static_cast<float>(value));
      if (value < 0.0)  // a weight: anything of this size
        for (size_t i = 0; i < values.size(); ++i)
          values[i] = -static_cast<float>(value) * std::sin(static_cast<float>(i * 7919 % 10007));
      tape_.k.upload(made->value.view().data, values.data(), values.size() * sizeof(float));
      parameters_.push_back(std::move(made));
    }
    Owned& owned = *parameters_[next_++];
    owned.slot = {owned.grad.view(), false};
    return {owned.value.view(), training_ ? &owned.slot : nullptr};
  }
  Var weight(Shape shape) {
    const double fan_in = static_cast<double>(shape.elements()) / static_cast<double>(shape[0]);
    return cast_to_compute(tape_, parameter(shape, -std::sqrt(2.0 / fan_in)));
  }

  Var conv_norm(const Var& x, int64_t out, int64_t kernel, int64_t stride, int64_t groups,
                const FusedActivation& activation, const Var& residual = {}) {
    const Shape& in = x.value.shape;
    ConvShape shape{.batch = in[0],
                    .height = in[1],
                    .width = in[2],
                    .in = in[3],
                    .out = out,
                    .groups = groups,
                    .kernel_h = kernel,
                    .kernel_w = kernel,
                    .stride = stride};
    shape.pad(lite_ ? same_padding(in[1], kernel, stride) : torch_padding(kernel),
              lite_ ? same_padding(in[2], kernel, stride) : torch_padding(kernel));
    const Var w = weight({out, in[3] / groups, kernel, kernel});
    const Var gain = parameter({out}, 1.0), bias = parameter({out}, 0.0);
    BatchNormArgs norm{.eps = 1e-3,
                       .running_mean = parameter({out}, 0.0).value,
                       .running_var = parameter({out}, 1.0).value,
                       .activation = activation};
    if (training_) return batch_norm(tape_, conv2d(tape_, x, w, shape), gain, bias, norm);
    ConvEpilogue epilogue = fold_batch_norm(tape_, gain, bias, norm);
    epilogue.residual = residual.value;
    return conv2d(tape_, x, w, shape, epilogue);
  }

  Var block(const Var& x, const Stage& stage, int64_t stride, double drop) {
    const int64_t in = x.value.shape[3], wide = in * stage.expand, out = widened(stage.out, width_);
    Var y = stage.expand > 1 ? conv_norm(x, wide, 1, 1, 1, act()) : x;
    y = conv_norm(y, wide, stage.kernel, stride, wide, act());
    if (!lite_) {
      const int64_t narrow = std::max<int64_t>(1, in / 4);
      const Var s = activation_dropout(tape_, linear(tape_, average_pool(tape_, y), weight({narrow, wide}), {}),
                                       parameter({narrow}, 0.0), Activation::silu, {});
      const Var gate = activation_dropout(tape_, linear(tape_, s, weight({wide, narrow}), {}), parameter({wide}, 0.0),
                                          Activation::sigmoid, {});
      y = scale_channels(tape_, y, gate);
    }
    const bool shortcut = stride == 1 && in == out;
    if (!training_) return conv_norm(y, out, 1, 1, 1, {}, shortcut ? x : Var{});
    y = conv_norm(y, out, 1, 1, 1, {});
    return shortcut ? drop_path(tape_, x, y, {drop, next_}) : y;
  }

  Arena arena_;
  Tape tape_;
  bool lite_, training_;
  int64_t size_;
  double width_, depth_;
  uint32_t passes_ = 0;
  OwnedTensor images_;
  std::vector<int32_t> labels_;
  std::vector<std::unique_ptr<Owned>> parameters_;
  size_t next_ = 0;
};

Json measure(const Options& o, bool lite, bool training, int64_t batch, double seconds) {
  Profiler profiler;
  const Kernels& backend = o.device == DeviceKind::cuda ? cuda_kernels() : cpu_kernels();
  const Kernels& kernels = o.profile ? profiled_kernels(backend, profiler) : backend;
  Network network(kernels, o, lite, training, batch);
  network.pass();
  network.pass();
  const auto now = [] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  };
  std::vector<double> times;
  for (const double end = now() + seconds; now() < end || times.size() < 3;) {
    const double start = now();
    network.pass();
    times.push_back(now() - start);
  }
  Json report{
      {"best", *std::min_element(times.begin(), times.end())}, {"median", median(times)}, {"steps", times.size()}};
  if (o.profile)
    for (const OpTotals& op : profiler.ops())
      for (const auto& [name, total] : {std::pair{op.name, op.elsewhere}, {op.name + " backward", op.backward}})
        if (total.calls > 0)
          report["ms of " + name] = static_cast<double>(total.ns) * 1e-6 / static_cast<double>(times.size() + 2);
  return report;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Times of EfficientNet made of the ops: forward and backward of B0, evaluation of lite0",
               "vision_bench"};
  Options o;
  o.common.add_to(app);
  app.add_option("--batch", o.batch, "Images of a batch")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--size", o.size, "Height and width of the images")
      ->capture_default_str()
      ->check(CLI::Range(32, 1024));
  app.add_option("--seconds", o.seconds, "Time for the training step; evaluations get half as much")
      ->capture_default_str();
  app.add_option("--width", o.width, "Multiplies the training network's channels (B3: 1.2)")
      ->capture_default_str()
      ->check(CLI::Range(0.1, 4.0));
  app.add_option("--depth", o.depth, "Multiplies its blocks (B3: 1.4)")
      ->capture_default_str()
      ->check(CLI::Range(0.1, 8.0));
  cli::add_choice(app, "--device", o.device, "cpu or cuda");
  app.add_flag("--bf16", o.bf16, "Activations in bf16");
  app.add_flag("--tf32", o.tf32, "Products of fp32 in TF32, on GPUs");
  app.add_flag("--no-evaluation", o.no_evaluation, "The training step only");
  app.add_flag("--profile", o.profile, "Where the time goes, by op");
  return run_program(app, o.common, argc, argv, [&](Communicator&) {
    allow_tf32(o.tf32);
    Json report{{"batch", o.batch}, {"size", o.size}, {"width", o.width}, {"depth", o.depth}};
    report["step"] = measure(o, false, true, o.batch, o.seconds);
    if (o.no_evaluation) return print_report(report, o.common.json);
    report["lite0_batch_1"] = measure(o, true, false, 1, o.seconds / 2);
    report["lite0_batch_" + std::to_string(o.batch)] = measure(o, true, false, o.batch, o.seconds / 2);
    print_report(report, o.common.json);
  });
}
