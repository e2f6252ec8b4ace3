#include <cmath>

#include "ops/cpu/cpu_kernels.h"
#include "ops/cpu/parallel.h"

namespace qn::cpu {

void nag_step(const Tensor& p, const Tensor& velocity, const Tensor& g, const NagStep& step) {
  dispatch_float(p.dtype, [&](auto tag) {
    using T = decltype(tag);
    const double ratio = step.lr_previous > 0.0 ? step.lr / step.lr_previous : step.lr;
    const T decay = static_cast<T>(1.0 - step.lr * step.weight_decay);
    const T momentum = static_cast<T>(step.momentum * ratio);
    const T look_ahead = static_cast<T>(step.momentum * step.momentum * ratio);
    const T rate = static_cast<T>(step.lr), reach = static_cast<T>((1.0 + step.momentum) * step.lr);
    const T scale = static_cast<T>(step.grad_scale);
    T *ps = p.as<T>(), *vs = velocity.as<T>();
    const T* gs = g.as<T>();
    parallel_chunks(p.elements(), [=](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) {
        const T grad = scale * gs[i], v = vs[i];
        ps[i] = decay * ps[i] + look_ahead * v - reach * grad;
        vs[i] = momentum * v - rate * grad;
      }
    });
  });
}

void adam_step(const Tensor& p, const Tensor& m, const Tensor& v, const Tensor& g, const AdamStep& step) {
  dispatch_float(p.dtype, [&](auto tag) {
    using T = decltype(tag);
    const auto t = static_cast<double>(step.step);
    const double correction = std::sqrt(1.0 - std::pow(step.beta2, t)) / (1.0 - std::pow(step.beta1, t));
    const T b1 = static_cast<T>(step.beta1), b2 = static_cast<T>(step.beta2);
    const T rate = static_cast<T>(step.lr * correction), eps = static_cast<T>(step.eps);
    const T decay = static_cast<T>(1.0 - step.lr * step.weight_decay);
    const T scale = static_cast<T>(step.grad_scale);
    T *ps = p.as<T>(), *ms = m.as<T>(), *vs = v.as<T>();
    const T* gs = g.as<T>();
    parallel_chunks(p.elements(), [=](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) {
        const T grad = scale * gs[i];
        ms[i] = b1 * ms[i] + (T{1} - b1) * grad;
        vs[i] = b2 * vs[i] + (T{1} - b2) * grad * grad;
        ps[i] = decay * ps[i] - rate * ms[i] / (std::sqrt(vs[i]) + eps);
      }
    });
  });
}

}  // namespace qn::cpu
