// Entries of the op table for image networks.
#include "ops/vision.h"
#include "table_parts.h"

namespace qn::test {
namespace {

using Activations = std::vector<FusedActivation>;
const Activations kFused = {std::nullopt, Activation::relu, Activation::relu6, Activation::silu};

std::string suffix_of(const FusedActivation& act) { return act.has_value() ? std::string("_") + name_of(*act) : ""; }

Shape images(const ConvShape& s) { return {s.batch, s.height, s.width, s.in}; }
Shape results(const ConvShape& s) { return {s.batch, s.out_height(), s.out_width(), s.out}; }
Shape weights(const ConvShape& s) { return {s.out, s.in_per_group(), s.kernel_h, s.kernel_w}; }

ConvShape square(int64_t batch, int64_t height, int64_t width, int64_t in, int64_t out, int64_t groups, int64_t kernel,
                 int64_t stride, bool same = false) {
  ConvShape s{.batch = batch,
              .height = height,
              .width = width,
              .in = in,
              .out = out,
              .groups = groups,
              .kernel_h = kernel,
              .kernel_w = kernel,
              .stride = stride};
  s.pad(same ? same_padding(height, kernel, stride) : torch_padding(kernel),
        same ? same_padding(width, kernel, stride) : torch_padding(kernel));
  return s;
}

ConvShape oblong() {
  return {.batch = 2,
          .height = 4,
          .width = 9,
          .in = 3,
          .out = 2,
          .kernel_h = 1,
          .kernel_w = 5,
          .stride = 1,
          .pad_left = 4,
          .pad_right = 1};
}

struct NamedShape {
  std::string name;
  ConvShape shape;
};

std::vector<NamedShape> shapes() {
  std::vector<NamedShape> all = {
      {"one", square(1, 1, 1, 1, 1, 1, 1, 1)},
      {"pointwise", square(2, 3, 5, 7, 4, 1, 1, 1)},
      {"pointwise_stride2", square(2, 5, 4, 3, 6, 1, 1, 2)},
      {"stem", square(2, 9, 8, 3, 8, 1, 3, 2)},
      {"stem_same", square(2, 8, 9, 3, 8, 1, 3, 2, true)},
      {"dense", square(2, 6, 5, 17, 33, 1, 3, 1)},
      {"dense_even_kernel", square(1, 5, 6, 4, 3, 1, 2, 1, true)},
      {"no_padding", {.batch = 2, .height = 5, .width = 6, .in = 3, .out = 4, .kernel_h = 3, .kernel_w = 2}},
      {"oblong", oblong()},
      {"groups", square(2, 5, 5, 6, 9, 3, 3, 1)},
      {"groups_pointwise", square(2, 4, 3, 8, 4, 2, 1, 1)},
      {"channel_multiplier", square(1, 4, 4, 3, 6, 3, 3, 1)},
      {"stride3", square(1, 10, 11, 2, 3, 1, 3, 3)},
      {"large", square(3, 14, 13, 16, 32, 1, 3, 1)}};
  for (const int64_t channels : {1, 6, 20, 33, 80})
    for (const auto& [kernel, stride] : {std::pair<int64_t, int64_t>{3, 1}, {3, 2}, {5, 1}, {5, 2}})
      for (const bool same : {false, true}) {
        if (same && stride == 1) continue;  // the same padding
        all.push_back({"depthwise_" + std::to_string(channels) + "_k" + std::to_string(kernel) + "s" +
                           std::to_string(stride) + (same ? "_same" : ""),
                       square(2, 7, 12, channels, channels, channels, kernel, stride, same)});
      }
  all.push_back({"depthwise_small_image", square(2, 2, 3, 9, 9, 9, 5, 1)});
  all.push_back({"depthwise_one_pixel", square(1, 1, 1, 40, 40, 40, 5, 2)});
  all.push_back({"depthwise_k7s3", square(1, 11, 9, 5, 5, 5, 7, 3)});
  all.push_back({"depthwise_k18", square(1, 20, 19, 2, 2, 2, 18, 1, true)});
  all.push_back({"depthwise_large", square(2, 23, 24, 48, 48, 48, 3, 1)});
  return all;
}

void add_convolutions(Cases& cases) {
  for (const auto& [name, shape] : shapes())
    cases.push_back({.name = "conv2d_" + name,
                     .inputs = {{images(shape)}, parameter(weights(shape))},
                     .forward = [shape = shape](Tape& t, Inputs x) {
                       return std::vector{conv2d(t, x[0], cast_to_compute(t, x[1]), shape)};
                     }});
  const ConvShape twice = square(1, 5, 4, 3, 3, 1, 3, 1);
  cases.push_back({.name = "conv2d_weight_used_twice",
                   .inputs = {{images(twice)}, parameter(weights(twice))},
                   .forward = [twice](Tape& t, Inputs x) {
                     const Var w = cast_to_compute(t, x[1]);
                     return std::vector{conv2d(t, conv2d(t, x[0], w, twice), w, twice)};
                   }});
}

/// What evaluation computes in one go.
void add_epilogues(Cases& cases) {
  const auto add = [&](const std::string& name, const ConvShape& shape, const FusedActivation& act, bool residual) {
    const Shape channels{shape.out};
    cases.push_back({.name = "conv2d_epilogue_" + name + suffix_of(act) + (residual ? "_residual" : ""),
                     .inputs = {{images(shape)},
                                parameter(weights(shape)),
                                parameter(channels),
                                parameter(channels),
                                parameter(channels),
                                parameter(channels, Values::positive),
                                {results(shape)}},
                     .forward =
                         [=](Tape& t, Inputs x) {
                           ConvEpilogue epilogue = fold_batch_norm(
                               t, x[2], x[3],
                               {.eps = 64.0, .running_mean = x[4].value, .running_var = x[5].value, .activation = act});
                           if (residual) epilogue.residual = x[6].value;
                           return std::vector{conv2d(t, x[0], cast_to_compute(t, x[1]), shape, epilogue)};
                         },
                     .differentiable = false});
  };
  for (const FusedActivation& act : kFused)
    for (const bool residual : {false, true}) {
      add("dense", square(2, 6, 5, 17, 33, 1, 3, 1), act, residual);
      add("pointwise", square(2, 7, 9, 24, 40, 1, 1, 1), act, residual);
      add("groups", square(2, 5, 5, 6, 9, 3, 3, 1), act, residual);
      add("depthwise", square(2, 7, 6, 37, 37, 37, 5, 2), act, residual);
    }
  const ConvShape shape = square(1, 5, 5, 3, 4, 1, 3, 1);
  cases.push_back({.name = "conv2d_epilogue_of_parts",
                   .inputs = {{images(shape)}, parameter(weights(shape)), parameter({4}), {results(shape)}},
                   .forward =
                       [=](Tape& t, Inputs x) {
                         const Var w = cast_to_compute(t, x[1]);
                         ConvEpilogue scale, shift, residual;
                         scale.scale = x[2].value;
                         shift.shift = x[2].value;
                         residual.residual = x[3].value;
                         return std::vector{conv2d(t, x[0], w, shape, scale), conv2d(t, x[0], w, shape, shift),
                                            conv2d(t, x[0], w, shape, residual)};
                       },
                   .differentiable = false});
}

/// Sums of the batch, beside the result.
Var sums_of_batch(Tape& t, int64_t channels) {
  const Var sums{t.parameter_tensor({2, channels}), nullptr};
  t.k.fill(sums.value, 0.5);
  return sums;
}

void add_batch_norm(Cases& cases) {
  const auto add = [&](const std::string& name, const Shape& x, const FusedActivation& act) {
    const int64_t c = x[-1];
    cases.push_back({.name = "batch_norm_" + name + suffix_of(act),
                     .inputs = {{x}, parameter({c}), parameter({c})},
                     .forward =
                         [=](Tape& t, Inputs in) {
                           return std::vector{
                               batch_norm(t, in[0], in[1], in[2],
                                          {.eps = 1e-3, .batch_sums = sums_of_batch(t, c).value, .activation = act})};
                         },
                     .training = true});
    for (const bool training : {false, true})  // frozen in training, too
      cases.push_back({.name = "batch_norm_" + std::string(training ? "frozen_" : "running_") + name + suffix_of(act),
                       .inputs = {{x}, parameter({c}), parameter({c})},
                       .forward =
                           [=](Tape& t, Inputs in) {
                             const Tensor mean = t.parameter_tensor({c}), var = t.parameter_tensor({c});
                             t.k.fill(mean, 0.3);
                             t.k.fill(var, 1.7);
                             return std::vector{batch_norm(
                                 t, in[0], in[1], in[2],
                                 {.running_mean = mean, .running_var = var, .frozen = true, .activation = act})};
                           },
                       .training = training});
  };
  for (const FusedActivation& act : kFused) {
    add("3_values", {3, 1}, act);
    add("image", {2, 3, 4, 5}, act);
    add("33_channels", {3, 5, 4, 33}, act);
  }
  add("large", {4, 9, 12, 67}, Activation::silu);
  cases.push_back({.name = "batch_norm_sums_of_batch",
                   .inputs = {{{3, 4, 4, 9}}, parameter({9}), parameter({9})},
                   .forward =
                       [](Tape& t, Inputs in) {
                         const Var sums = sums_of_batch(t, 9);
                         const BatchNormArgs args{.batch_sums = sums.value};
                         batch_norm(t, in[0], in[1], in[2], args);
                         batch_norm(t, in[0], in[1], in[2], args);
                         return std::vector{sums};
                       },
                   .training = true,
                   .differentiable = false});
  cases.push_back({.name = "batch_norm_behind_a_convolution",
                   .inputs = {{{2, 4, 5, 3}}, parameter({6, 3, 1, 1}), parameter({6}), parameter({6})},
                   .forward =
                       [](Tape& t, Inputs x) {
                         const Var y = conv2d(t, x[0], cast_to_compute(t, x[1]), square(2, 4, 5, 3, 6, 1, 1, 1));
                         return std::vector{batch_norm(t, y, x[2], x[3], {.activation = Activation::silu})};
                       },
                   .training = true});
}

void add_images(Cases& cases) {
  for (const Shape& shape : {Shape{1, 1, 1, 1}, Shape{2, 3, 5, 7}, Shape{3, 8, 9, 70}}) {
    const std::string size = std::to_string(shape[0]) + "x" + std::to_string(shape[-1]);
    cases.push_back({.name = "average_pool_" + size, .inputs = {{shape}}, .forward = [](Tape& t, Inputs x) {
                       return std::vector{average_pool(t, x[0])};
                     }});
    cases.push_back({.name = "scale_channels_" + size,
                     .inputs = {{shape}, {{shape[0], shape[-1]}}},
                     .forward = [](Tape& t, Inputs x) { return std::vector{scale_channels(t, x[0], x[1])}; }});
    cases.push_back({.name = "squeeze_excitation_" + size,
                     .inputs = {{shape}, parameter({shape[-1], shape[-1]})},
                     .forward = [](Tape& t, Inputs x) {
                       const Var gate = linear(t, average_pool(t, x[0]), cast_to_compute(t, x[1]), {});
                       return std::vector{
                           scale_channels(t, x[0], activation_dropout(t, gate, {}, Activation::sigmoid, {}))};
                     }});
  }
  for (const bool training : {false, true})
    for (const Shape& shape : {Shape{1, 1, 1, 1}, Shape{5, 2, 3, 7}, Shape{130, 1, 2, 1}, Shape{3, 40, 30, 20}})
      cases.push_back({.name = "drop_path_" + std::to_string(shape.elements()) + (training ? "_dropped" : ""),
                       .inputs = {{shape}, {shape}},
                       .forward =
                           [](Tape& t, Inputs x) {
                             return std::vector{drop_path(t, x[0], x[1], {0.4, 12})};
                           },
                       .training = training});
  cases.push_back({.name = "drop_path_of_itself",
                   .inputs = {{{6, 2, 2, 3}}},
                   .forward =
                       [](Tape& t, Inputs x) {
                         return std::vector{drop_path(t, x[0], x[0], {0.4, 12})};
                       },
                   .training = true});
}

}  // namespace

void add_vision(Cases& cases) {
  add_convolutions(cases);
  add_epilogues(cases);
  add_batch_norm(cases);
  add_images(cases);
}

}  // namespace qn::test
