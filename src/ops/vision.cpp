// Convolutions, pooling, scaled channels and stochastic depth.
#include "ops/vision.h"

#include "ops/gradient.h"

namespace qn {
namespace {

Shape result_shape(const ConvShape& s) { return {s.batch, s.out_height(), s.out_width(), s.out}; }

/// [batch, height * width pixels, channels]: what kernels for images go by, whatever the gradient's shape is.
Tensor like(const Tensor& grad, const Tensor& value) { return grad.reshaped(value.shape); }

void check_shape(const Var& x, const Var& weight, const ConvShape& s) {
  QN_ASSERT(x.value.elements() == s.batch * s.height * s.width * s.in && x.value.cols() == s.in,
            "an image batch {} is not {} x {} x {} x {}", x.value.shape.to_string(), s.batch, s.height, s.width, s.in);
  QN_ASSERT(s.groups > 0 && s.in % s.groups == 0 && s.out % s.groups == 0 && s.stride > 0);
  QN_ASSERT(weight.value.elements() == s.weights(), "weight {} for {} of {} channels", weight.value.shape.to_string(),
            s.out, s.in);
  QN_ASSERT(s.height + s.pad_top + s.pad_bottom >= s.kernel_h && s.width + s.pad_left + s.pad_right >= s.kernel_w,
            "images of {} x {} are smaller than the kernel", s.height, s.width);
}

/// A convolution by 1 x 1 is a product of matrices.
Var multiply_pixels(Tape& tape, const Var& x, const Var& weight, const ConvShape& s) {
  const auto matrix = [](const Var& v, int64_t rows, int64_t cols) {
    return Var{v.value.reshaped({rows, cols}), v.slot};
  };
  Var y = linear(tape, matrix(x, s.batch * s.height * s.width, s.in), matrix(weight, s.out, s.in), {});
  y.value.shape = result_shape(s);
  return y;
}

}  // namespace

Var conv2d(Tape& tape, const Var& x, const Var& weight, const ConvShape& shape, const ConvEpilogue& epilogue) {
  check_shape(x, weight, shape);
  const bool plain = !epilogue.scale.defined() && !epilogue.shift.defined() && !epilogue.activation.has_value() &&
                     !epilogue.residual.defined();
  QN_ASSERT(plain || !tape.recording());
  if (plain && shape.pointwise()) return multiply_pixels(tape, x, weight, shape);
  const Var y = tape.result(result_shape(shape));
  tape.k.conv2d(y.value, x.value, weight.value, shape, epilogue);
  tape.on_backward([&tape, x, y, weight, shape] {
    if (!Tape::has_grad(y)) return;
    if (weight.slot != nullptr) {
      const Tape::Slot dw = tape.slot(weight);
      tape.k.conv2d_weight_grad(dw.grad, x.value, y.slot->grad, shape, dw.beta);
    }
    if (x.slot != nullptr) {
      const Tape::Slot dx = tape.slot(x);
      tape.k.conv2d_input_grad(dx.grad, y.slot->grad, weight.value, shape, dx.beta);
    }
  });
  return y;
}

Var average_pool(Tape& tape, const Var& x) {
  QN_ASSERT(x.value.shape.rank() == 4, "{} is no batch of images", x.value.shape.to_string());
  const Var y = tape.result({x.value.shape[0], x.value.shape[3]});
  tape.k.average_pool(y.value, x.value);
  tape.on_backward([&tape, x, y] {
    if (!Tape::has_grad(y) || x.slot == nullptr) return;
    const Tape::Slot dx = tape.slot(x);
    tape.k.average_pool_grad(like(dx.grad, x.value), y.slot->grad, dx.beta);
  });
  return y;
}

Var scale_channels(Tape& tape, const Var& x, const Var& s) {
  QN_ASSERT(x.value.shape.rank() == 4 && s.value.elements() == x.value.shape[0] * x.value.shape[3],
            "scales {} for images {}", s.value.shape.to_string(), x.value.shape.to_string());
  const Var y = tape.result(x.value.shape);
  tape.k.scale_channels(y.value, x.value, s.value);
  tape.on_backward([&tape, x, s, y] {
    if (!Tape::has_grad(y)) return;
    const Tensor dy = like(y.slot->grad, y.value);
    // Both come from one reading: what nobody wants goes where nobody reads.
    const Tape::Slot dx = x.slot != nullptr ? slot_in_place_of(tape, x, dy) : Tape::Slot{dy, 0};
    const Tape::Slot ds = s.slot != nullptr ? tape.slot(s) : Tape::Slot{tape.tensor(s.value.shape), 0};
    tape.k.scale_channels_grad(like(dx.grad, x.value), dx.beta, ds.grad, ds.beta, dy, x.value, s.value);
  });
  return y;
}

Var drop_path(Tape& tape, const Var& residual, const Var& x, const Dropout& drop) {
  QN_ASSERT(residual.value.shape == x.value.shape);
  const DropMask mask = draw_mask(tape, x.value.shape[0], drop);
  const Var y = tape.result(x.value.shape);
  tape.k.scale_samples(y.value, residual.value, x.value, mask.bits, mask.scale);
  tape.on_backward([&tape, residual, x, y, mask] {
    if (!Tape::has_grad(y)) return;
    if (x.slot != nullptr) {
      const Tape::Slot dx = tape.slot(x);
      const Tensor grad = like(dx.grad, x.value);
      tape.k.scale_samples(grad, dx.beta != 0 ? grad : Tensor{}, like(y.slot->grad, y.value), mask.bits, mask.scale);
    }
    pass_grad_on(tape, residual, y);
  });
  return y;
}

}  // namespace qn
