#include "ops/cpu/conv_onednn.h"

#include <omp.h>

#include <map>
#include <unordered_map>
#include <vector>

#include "core/cpu_features.h"
#include "ops/cpu/cpu_kernels.h"
#include "ops/cpu/onednn.h"
#include "ops/cpu/parallel.h"
#include "ops/cpu/scratch.h"

namespace qn::cpu {
namespace {

using Memory = dnnl::memory;
using Desc = Memory::desc;
using Tag = Memory::format_tag;

enum class Pass { forward, input_grad, weight_grad };

/// What a primitive is made for.
struct Problem {
  Pass pass;
  ConvShape shape;
  DType dtype;
  bool shift = false, residual = false;
  FusedActivation activation = {};
  int threads = omp_get_max_threads();
  auto operator<=>(const Problem&) const = default;
};

/// A primitive, the reordering of weights that goes with it, and the places of their arguments.
struct Plan {
  dnnl::primitive primitive;
  dnnl::reorder reorder;  // of the weights before, or of their gradients behind
  Memory image, weights, result, plain_weights, shift, residual, scratchpad;
  size_t weight_bytes = 0, scratch_bytes = 0;
  std::unordered_map<int, Memory> arguments;
};

Memory::data_type type_of(DType dtype) {
  return dtype == DType::bf16 ? Memory::data_type::bf16 : Memory::data_type::f32;
}

Desc images(int64_t batch, int64_t channels, int64_t height, int64_t width, DType dtype) {
  return {{batch, channels, height, width}, type_of(dtype), Tag::nhwc};
}

Memory::dims weight_sizes(const ConvShape& s) {
  if (s.groups == 1) return {s.out, s.in, s.kernel_h, s.kernel_w};
  return {s.groups, s.out_per_group(), s.in_per_group(), s.kernel_h, s.kernel_w};
}

dnnl::primitive_attr attributes_of(const Problem& p, const Desc& result) {
  dnnl::post_ops steps;
  if (p.activation == Activation::relu) steps.append_eltwise(1.0f, dnnl::algorithm::eltwise_relu, 0.0f, 0.0f);
  if (p.activation == Activation::relu6) steps.append_eltwise(1.0f, dnnl::algorithm::eltwise_clip, 0.0f, 6.0f);
  if (p.activation == Activation::silu) steps.append_eltwise(1.0f, dnnl::algorithm::eltwise_swish, 1.0f, 0.0f);
  if (p.residual) steps.append_binary(dnnl::algorithm::binary_add, result);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  attributes.set_post_ops(steps);
  return attributes;
}

Plan make_plan(const Problem& p) {
  const ConvShape& s = p.shape;
  const Memory::dims strides{s.stride, s.stride}, before{s.pad_top, s.pad_left}, behind{s.pad_bottom, s.pad_right};
  const Desc image = images(s.batch, s.in, s.height, s.width, p.dtype);
  const Desc result = images(s.batch, s.out, s.out_height(), s.out_width(), p.dtype);
  const Desc shift({s.out}, Memory::data_type::f32, Tag::a);
  const DType weight_type = p.pass == Pass::weight_grad ? DType::f32 : p.dtype;
  const Desc any_weights(weight_sizes(s), type_of(weight_type), Tag::any);
  const Desc plain_weights(weight_sizes(s), type_of(weight_type), s.groups == 1 ? Tag::oihw : Tag::goihw);
  const auto algorithm = dnnl::algorithm::convolution_direct;
  const dnnl::primitive_attr attributes = attributes_of(p, result);
  const auto kind = p.pass == Pass::forward ? dnnl::prop_kind::forward_inference : dnnl::prop_kind::forward_training;
  using Forward = dnnl::convolution_forward;
  const Forward::desc forward_desc =
      p.shift
          ? Forward::desc(kind, algorithm, image, any_weights, shift, result, strides, before, behind)
          : Forward::desc(kind, algorithm, image,
                          p.pass == Pass::weight_grad ? Desc(weight_sizes(s), type_of(p.dtype), Tag::any) : any_weights,
                          result, strides, before, behind);
  const Forward::primitive_desc forward(forward_desc, attributes, onednn_engine());
  Plan plan;
  Desc weights, scratchpad;
  switch (p.pass) {
    case Pass::forward:
      plan.primitive = Forward(forward);
      weights = forward.weights_desc();
      scratchpad = forward.scratchpad_desc();
      break;
    case Pass::input_grad: {
      using Backward = dnnl::convolution_backward_data;
      const Backward::primitive_desc backward({algorithm, image, any_weights, result, strides, before, behind},
                                              attributes, onednn_engine(), forward);
      plan.primitive = Backward(backward);
      weights = backward.weights_desc();
      scratchpad = backward.scratchpad_desc();
      break;
    }
    case Pass::weight_grad: {
      using Backward = dnnl::convolution_backward_weights;
      const Backward::primitive_desc backward({algorithm, image, any_weights, result, strides, before, behind},
                                              attributes, onednn_engine(), forward);
      plan.primitive = Backward(backward);
      weights = backward.diff_weights_desc();
      scratchpad = backward.scratchpad_desc();
      break;
    }
  }
  plan.image = placeless(image);
  plan.weights = placeless(weights);
  plan.result = placeless(result);
  plan.plain_weights = placeless(plain_weights);
  plan.shift = placeless(shift);
  plan.residual = placeless(result);
  plan.scratchpad = placeless(scratchpad);
  plan.weight_bytes = weights.get_size();
  plan.scratch_bytes = scratchpad.get_size();
  plan.reorder = p.pass == Pass::weight_grad ? dnnl::reorder(plan.weights, plan.plain_weights)
                                             : dnnl::reorder(plan.plain_weights, plan.weights);
  plan.arguments = {{p.pass == Pass::input_grad ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, plan.image},
                    {p.pass == Pass::weight_grad ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, plan.weights},
                    {p.pass == Pass::forward ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST, plan.result},
                    {DNNL_ARG_SCRATCHPAD, plan.scratchpad}};
  if (p.shift) plan.arguments.insert({DNNL_ARG_BIAS, plan.shift});
  if (p.residual)
    plan.arguments.insert(
        {DNNL_ARG_ATTR_MULTIPLE_POST_OP(p.activation.has_value() ? 1 : 0) | DNNL_ARG_SRC_1, plan.residual});
  return plan;
}

/// The calling thread's plan for a problem. Evaluation meets batches of a few sizes only; they must not pile up all the
/// same.
Plan& plan_for(const Problem& problem) {
  constexpr size_t kMost = 1024;
  static thread_local std::map<Problem, Plan> made;
  const auto found = made.find(problem);
  if (found != made.end()) return found->second;
  if (made.size() >= kMost) made.clear();
  return made.emplace(problem, make_plan(problem)).first->second;
}

void place(Memory& memory, const void* data) { memory.set_data_handle(const_cast<void*>(data)); }

/// Puts packed weights and scratch memory of the primitive's own in their places.
void place_scratch(Plan& plan) {
  static thread_local std::vector<std::byte> packed, scratch;
  place(plan.weights, at_least(packed, static_cast<int64_t>(plan.weight_bytes)));
  place(plan.scratchpad, at_least(scratch, static_cast<int64_t>(plan.scratch_bytes)));
}

void reorder(Plan& plan, Memory& from, Memory& to) {
  plan.reorder.execute(onednn_stream(), {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}});
}

void compute(Plan& plan) {
  plan.primitive.execute(onednn_stream(), plan.arguments);
  onednn_stream().wait();
}

/// Weights with each channel's times its scale.
const void* scaled_weights(const Tensor& w, const Tensor& scale, const ConvShape& s) {
  if (!scale.defined()) return w.data;
  static thread_local std::vector<std::byte> scratch;
  const int64_t each = s.weights() / s.out;
  const Tensor copy{at_least(scratch, static_cast<int64_t>(w.bytes())), {s.out, each}, w.dtype};
  scale_rows(copy, w.reshaped({s.out, each}), scale, 0);
  return copy.data;
}

}  // namespace

bool onednn_convolves(DType dtype) { return dtype == DType::f32 || (dtype == DType::bf16 && cpu_multiplies_bf16()); }

void conv_onednn(const Tensor& y, const Tensor& x, const Tensor& w, const ConvShape& s, const ConvEpilogue& e) {
  Plan& plan = plan_for({.pass = Pass::forward,
                         .shape = s,
                         .dtype = y.dtype,
                         .shift = e.shift.defined(),
                         .residual = e.residual.defined(),
                         .activation = e.activation});
  place_scratch(plan);
  place(plan.plain_weights, scaled_weights(w, e.scale, s));
  place(plan.image, x.data);
  place(plan.result, y.data);
  place(plan.shift, e.shift.data);
  place(plan.residual, e.residual.data);
  reorder(plan, plan.plain_weights, plan.weights);
  compute(plan);
}

void conv_onednn_input_grad(const Tensor& dx, const Tensor& dy, const Tensor& w, const ConvShape& s, int beta) {
  static thread_local std::vector<std::byte> scratch;
  const Tensor own{beta != 0 ? at_least(scratch, static_cast<int64_t>(dx.bytes())) : dx.data, dx.shape, dx.dtype};
  Plan& plan = plan_for({.pass = Pass::input_grad, .shape = s, .dtype = dy.dtype});
  place_scratch(plan);
  place(plan.plain_weights, w.data);
  place(plan.image, own.data);
  place(plan.result, dy.data);
  reorder(plan, plan.plain_weights, plan.weights);
  compute(plan);
  if (beta != 0) axpy(dx, own, 1.0, 1);
}

void conv_onednn_weight_grad(const Tensor& dw, const Tensor& x, const Tensor& dy, const ConvShape& s, int beta) {
  static thread_local std::vector<std::byte> scratch;
  const Tensor own{beta != 0 ? at_least(scratch, static_cast<int64_t>(dw.bytes())) : dw.data, dw.shape, dw.dtype};
  Plan& plan = plan_for({.pass = Pass::weight_grad, .shape = s, .dtype = dy.dtype});
  place_scratch(plan);
  place(plan.plain_weights, own.data);
  place(plan.image, x.data);
  place(plan.result, dy.data);
  compute(plan);
  reorder(plan, plan.weights, plan.plain_weights);
  onednn_stream().wait();
  if (beta != 0) axpy(dw, own, 1.0, 1);
}

}  // namespace qn::cpu
