// The norm of the gradient and the optimizers' steps, all in P.
#include <cmath>

#include "ops/cuda/cuda_kernels.h"
#include "ops/cuda/reduce.cuh"
#include "ops/cuda/types.cuh"
#include "ops/optimizer_rules.h"

namespace qn::cuda {
namespace {

constexpr unsigned kPartials = 512;

// partial[block] = its share of the squares; which elements those are depends on n only.
template <typename P>
__global__ void square_partials(double* partial, const P* x, int64_t n) {
  double sum = 0.0;
  for (int64_t i = thread_index(); i < n; i += thread_count())
    sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// One block. *total = beta * *total + the sum.
__global__ void add_partials(double* total, const double* partial, unsigned count, double beta) {
  double sum = 0.0;
  for (unsigned i = threadIdx.x; i < count; i += blockDim.x) sum += partial[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *total = beta == 0.0 ? sum : *total + sum;
}

__global__ void decide_kernel(UpdateState* state, UpdateRule rule) { qn::decide_update(*state, rule); }

template <typename P>
struct NagFactors {
  P decay, momentum, look_ahead, rate, reach;

  __host__ __device__ void set_ratio(const NagStep& step, double kept_lr) {
    const double ratio = lr_ratio(step, kept_lr);
    momentum = static_cast<P>(step.momentum * ratio);
    look_ahead = static_cast<P>(step.momentum * step.momentum * ratio);
  }
};

template <typename P>
__global__ void nag_kernel(P* p, P* velocity, const P* g, NagFactors<P> f, NagStep step, const StepDecision* decision,
                           int64_t n) {
  if (decision->go == 0.0) return;
  if (decision->kept_lr > 0.0) f.set_ratio(step, decision->kept_lr);  // the update before was skipped
  const P scale = static_cast<P>(decision->grad_scale);
  for (int64_t i = thread_index(); i < n; i += thread_count()) {
    const P grad = scale * g[i], v = velocity[i];
    p[i] = f.decay * p[i] + f.look_ahead * v - f.reach * grad;
    velocity[i] = f.momentum * v - f.rate * grad;
  }
}

template <typename P>
struct AdamFactors {
  P b1, b2, eps, decay;
};

template <typename P>
__global__ void adam_kernel(P* p, P* mean, P* square, const P* g, AdamFactors<P> f, AdamStep step,
                            const StepDecision* decision, int64_t n) {
  if (decision->go == 0.0) return;
  __shared__ P shared_rate;
  if (threadIdx.x == 0) {
    const double t = static_cast<double>(step.step) - decision->skipped;
    shared_rate = static_cast<P>(step.lr * (sqrt(1.0 - pow(step.beta2, t)) / (1.0 - pow(step.beta1, t))));
  }
  __syncthreads();
  const P rate = shared_rate, scale = static_cast<P>(decision->grad_scale);
  for (int64_t i = thread_index(); i < n; i += thread_count()) {
    const P grad = scale * g[i];
    const P m = f.b1 * mean[i] + (P{1} - f.b1) * grad;
    const P v = f.b2 * square[i] + (P{1} - f.b2) * grad * grad;
    mean[i] = m;
    square[i] = v;
    p[i] = f.decay * p[i] - rate * m / (sqrt(v) + f.eps);
  }
}

template <typename P>
__global__ void sgd_kernel(P* p, P* momentum, const P* g, SgdRule<P> rule, int64_t step, const StepDecision* decision,
                           int64_t n) {
  if (decision->go == 0.0) return;
  if (static_cast<double>(step) - decision->skipped <= 1.0) rule.begin();
  const P scale = static_cast<P>(decision->grad_scale);
  for (int64_t i = thread_index(); i < n; i += thread_count()) {
    P m = momentum != nullptr ? momentum[i] : P{0};
    rule(p[i], m, scale * g[i]);
    if (momentum != nullptr) momentum[i] = m;
  }
}

template <typename P>
__global__ void rmsprop_kernel(P* p, P* square, P* momentum, const P* g, RmspropRule<P> rule,
                               const StepDecision* decision, int64_t n) {
  if (decision->go == 0.0) return;
  const P scale = static_cast<P>(decision->grad_scale);
  for (int64_t i = thread_index(); i < n; i += thread_count()) {
    P m = momentum != nullptr ? momentum[i] : P{0};
    rule(p[i], square[i], m, scale * g[i]);
    if (momentum != nullptr) momentum[i] = m;
  }
}

}  // namespace

void sum_of_squares(double* result, const Tensor& x) {
  Context& context = Context::current();
  const ScratchScope scope(context.scratch());
  auto* partial = static_cast<double*>(context.scratch().allocate(kPartials * sizeof(double)));
  dispatch_parameter(x.dtype, [&](auto tag) {
    using P = decltype(tag);
    launch(square_partials<P>, dim3(kPartials), kThreads, partial, data_of<P>(x), x.elements());
  });
  launch(add_partials, dim3(1), kThreads, result, partial, kPartials, 0.0);
}

void add_sum(double* total, const Tensor& x) {
  launch(add_partials, dim3(1), kThreads, total, static_cast<const double*>(data_of<double>(x)),
         static_cast<unsigned>(x.elements()), 1.0);
}

void decide_update(UpdateState* state, const UpdateRule& rule) { launch(decide_kernel, dim3(1), dim3(1), state, rule); }

void nag_step(const Tensor& p, const Tensor& velocity, const Tensor& g, const NagStep& step,
              const StepDecision* decision) {
  dispatch_parameter(p.dtype, [&](auto tag) {
    using P = decltype(tag);
    NagFactors<P> factors{.decay = static_cast<P>(1.0 - step.lr * step.weight_decay),
                          .momentum = P{0},
                          .look_ahead = P{0},
                          .rate = static_cast<P>(step.lr),
                          .reach = static_cast<P>((1.0 + step.momentum) * step.lr)};
    factors.set_ratio(step, 0.0);
    launch(nag_kernel<P>, flat_grid(p.elements()), kThreads, data_of<P>(p), data_of<P>(velocity), data_of<P>(g),
           factors, step, decision, p.elements());
  });
}

void adam_step(const Tensor& p, const Tensor& m, const Tensor& v, const Tensor& g, const AdamStep& step,
               const StepDecision* decision) {
  dispatch_parameter(p.dtype, [&](auto tag) {
    using P = decltype(tag);
    const AdamFactors<P> factors{.b1 = static_cast<P>(step.beta1),
                                 .b2 = static_cast<P>(step.beta2),
                                 .eps = static_cast<P>(step.eps),
                                 .decay = static_cast<P>(1.0 - step.lr * step.weight_decay)};
    launch(adam_kernel<P>, flat_grid(p.elements()), kThreads, data_of<P>(p), data_of<P>(m), data_of<P>(v),
           data_of<P>(g), factors, step, decision, p.elements());
  });
}

void sgd_step(const Tensor& p, const Tensor& momentum, const Tensor& g, const SgdStep& step,
              const StepDecision* decision) {
  dispatch_parameter(p.dtype, [&](auto tag) {
    using P = decltype(tag);
    P* buffer = momentum.defined() ? data_of<P>(momentum) : nullptr;
    launch(sgd_kernel<P>, flat_grid(p.elements()), kThreads, data_of<P>(p), buffer, data_of<P>(g),
           SgdRule<P>(step, buffer != nullptr), step.step, decision, p.elements());
  });
}

void rmsprop_step(const Tensor& p, const Tensor& square, const Tensor& momentum, const Tensor& g,
                  const RmspropStep& step, const StepDecision* decision) {
  dispatch_parameter(p.dtype, [&](auto tag) {
    using P = decltype(tag);
    P* buffer = momentum.defined() ? data_of<P>(momentum) : nullptr;
    launch(rmsprop_kernel<P>, flat_grid(p.elements()), kThreads, data_of<P>(p), data_of<P>(square), buffer,
           data_of<P>(g), RmspropRule<P>(step, buffer != nullptr), decision, p.elements());
  });
}

}  // namespace qn::cuda
