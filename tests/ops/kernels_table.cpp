// Entries of the op table for kernels that no op reaches.
#include <limits>
#include <utility>

#include "ops/host_access.h"
#include "table_parts.h"

namespace qn::test {
namespace {

/// A copy in the backend's memory.
template <typename T>
T* placed(Tape& t, const T& value) {
  auto* place = static_cast<T*>(t.arena.allocate(sizeof value));
  t.k.upload(place, &value, sizeof value);
  return place;
}

const StepDecision* decision(Tape& t, const StepDecision& value) { return placed(t, value); }

/// What becomes of a state: every number of it.
Var decided(Tape& t, const UpdateState& before, const UpdateRule& rule) {
  UpdateState* state = placed(t, before);
  t.k.decide_update(state, rule);
  return {{state, {sizeof(UpdateState) / sizeof(double)}, DType::f64}, nullptr};
}

}  // namespace

void add_decisions(Cases& cases) {
  const double infinity = std::numeric_limits<double>::infinity();
  cases.push_back(
      {.name = "decide_update",
       .inputs = {{{1}}},
       .forward =
           [=](Tape& t, Inputs) {
             const UpdateState plain{.loss = 3.0, .squares = 400.0};
             UpdateState scaled = plain;
             scaled.loss_scale = 64.0;
             scaled.good_updates = 4.0;
             const UpdateRule rule{.tokens = 10.0, .clip_norm = 0.5, .growth_interval = 5.0, .minimum_scale = 1.0};
             return std::vector{decided(t, plain, {.tokens = 10.0}),
                                decided(t, plain, {.tokens = 10.0, .clip_norm = 0.5}), decided(t, scaled, rule)};
           },
       .differentiable = false});
  cases.push_back(
      {.name = "updates_that_go_nowhere",
       .inputs = {parameter({5}), parameter({5})},
       .forward =
           [=](Tape& t, Inputs x) {
             UpdateState state{.loss = 3.0, .squares = infinity};
             state.loss_scale = 64.0;
             UpdateState* s = placed(t, state);
             t.k.decide_update(s, {.tokens = 10.0, .clip_norm = 0.0, .growth_interval = 5.0, .minimum_scale = 1.0});
             const Var p = copy_of(t, x[0]), v = copy_of(t, x[1]), w = copy_of(t, x[1]);
             t.k.nag_step(p.value, v.value, x[0].value, {0.1, 0.1, 0.9, 0.1}, &s->decision);
             t.k.adam_step(p.value, v.value, w.value, x[0].value, {0.1, 0.9, 0.9, 1e-6, 0.1, 1}, &s->decision);
             t.k.sgd_step(p.value, v.value, x[0].value, {0.1, 0.9, 0.0, 0.1, false, false, 1}, &s->decision);
             t.k.rmsprop_step(p.value, v.value, w.value, x[0].value, {0.1, 0.9, 0.9, 1e-3, 0.1, false, true},
                              &s->decision);
             return std::vector{p, v, w, Var{view_of(&s->loss_scale, {1}), nullptr},
                                Var{view_of(&s->decision.skipped, {1}), nullptr}};
           },
       .differentiable = false});
}

void add_kernels(Cases& cases) {
  const auto add = [&](const std::string& name, std::vector<OpInput> inputs, OpCase::Forward forward) {
    cases.push_back(
        {.name = name, .inputs = std::move(inputs), .forward = std::move(forward), .differentiable = false});
  };
  for (const int64_t n : {1, 37, 20000}) {
    const std::string size = "_" + std::to_string(n);
    add("fill_and_axpy" + size, {{{n}}}, [](Tape& t, Inputs x) {
      const Var y = copy_of(t, x[0]), z = copy_of(t, x[0]);
      t.k.fill(y.value, 0.1);
      t.k.axpy(y.value, x[0].value, -1.5, 1);
      t.k.axpy(z.value, x[0].value, 0.3, 0);
      return std::vector{y, z};
    });
    add("upload_and_download" + size, {{{n}}}, [](Tape& t, Inputs x) {
      const OwnedTensor host(x[0].value.shape, x[0].value.dtype);
      t.k.download(host.view().data, x[0].value.data, x[0].value.bytes());
      const Var y{t.tensor(x[0].value.shape), nullptr};
      t.k.upload(y.value.data, host.view().data, y.value.bytes());
      return std::vector{y};
    });
    add("start_download" + size, {{{n}}}, [](Tape& t, Inputs x) {
      const OwnedTensor host(x[0].value.shape, x[0].value.dtype, *t.k.transfer);
      t.k.start_download(host.view().data, x[0].value.data, x[0].value.bytes());
      const int64_t mark = t.k.mark();
      t.k.fill(x[0].value, 0.0);  // too late to be in the copy
      t.k.wait(mark);
      const Var y{t.tensor(x[0].value.shape), nullptr};
      t.k.upload(y.value.data, host.view().data, y.value.bytes());
      return std::vector{y};
    });
    add("sum_of_squares" + size, {parameter({n})}, [](Tape& t, Inputs x) {
      const Tensor sum = t.arena.tensor({1}, DType::f64);
      t.k.sum_of_squares(sum.as<double>(), x[0].value);
      return std::vector{Var{sum, nullptr}};
    });
    add("add_sum" + size, {{{n}}}, [](Tape& t, Inputs x) {
      const Tensor terms = t.arena.tensor(x[0].value.shape, DType::f64), sum = t.arena.tensor({1}, DType::f64);
      write_on_host(t.k, terms, [&](const Tensor& host) {
        const HostView values(t.k, x[0].value);
        for (int64_t i = 0; i < host.elements(); ++i) host.as<double>()[i] = 0.1 * static_cast<double>(i % 17);
      });
      t.k.fill(sum, 0.25);
      t.k.add_sum(sum.as<double>(), terms);
      return std::vector{Var{sum, nullptr}};
    });
    add("nag_step" + size, {parameter({n}), parameter({n}), parameter({n})}, [](Tape& t, Inputs x) {
      const Var p = copy_of(t, x[0]), v = copy_of(t, x[1]);
      t.k.nag_step(p.value, v.value, x[2].value,
                   {.lr = 0.1, .lr_previous = 0.05, .momentum = 0.99, .weight_decay = 0.01},
                   decision(t, {.grad_scale = 0.5}));
      return std::vector{p, v};
    });
    add("adam_step" + size, {parameter({n}), parameter({n}), parameter({n}, Values::positive), parameter({n})},
        [](Tape& t, Inputs x) {
          const Var p = copy_of(t, x[0]), m = copy_of(t, x[1]), v = copy_of(t, x[2]);
          t.k.adam_step(p.value, m.value, v.value, x[3].value,
                        {.lr = 0.1, .beta1 = 0.9, .beta2 = 0.98, .eps = 1e-6, .weight_decay = 0.01, .step = 5},
                        decision(t, {.grad_scale = 0.5, .go = 1.0, .skipped = 2.0}));
          return std::vector{p, m, v};
        });
    add("sgd_step" + size, {parameter({n}), parameter({n}), parameter({n})}, [](Tape& t, Inputs x) {
      SgdStep step{.lr = 0.1,
                   .momentum = 0.9,
                   .dampening = 0.2,
                   .weight_decay = 0.01,
                   .decoupled = false,
                   .nesterov = false,
                   .step = 3};
      std::vector<Var> results;
      const auto take = [&](bool buffered, double skipped) {
        const Var p = copy_of(t, x[0]), m = copy_of(t, x[1]);
        t.k.sgd_step(p.value, buffered ? m.value : Tensor{}, x[2].value, step,
                     decision(t, {.grad_scale = 0.5, .go = 1.0, .skipped = skipped}));
        results.insert(results.end(), {p, m});
      };
      take(true, 0.0);
      take(true, 2.0);  // the first one that counts: the buffer is filled
      take(false, 0.0);
      step.dampening = 0.0;
      step.nesterov = step.decoupled = true;
      take(true, 0.0);
      return results;
    });
    add("rmsprop_step" + size, {parameter({n}), parameter({n}, Values::positive), parameter({n}), parameter({n})},
        [](Tape& t, Inputs x) {
          RmspropStep step{.lr = 0.1,
                           .alpha = 0.9,
                           .momentum = 0.8,
                           .eps = 1e-3,
                           .weight_decay = 0.01,
                           .decoupled = false,
                           .lr_in_momentum = true};
          std::vector<Var> results;
          const auto take = [&](bool buffered) {
            const Var p = copy_of(t, x[0]), s = copy_of(t, x[1]), m = copy_of(t, x[2]);
            t.k.rmsprop_step(p.value, s.value, buffered ? m.value : Tensor{}, x[3].value, step,
                             decision(t, {.grad_scale = 0.5}));
            results.insert(results.end(), {p, s, m});
          };
          take(true);
          take(false);
          step.decoupled = true;
          step.lr_in_momentum = false;
          take(true);
          return results;
        });
  }
  for (const auto& [n, words] : {std::pair<int64_t, int64_t>{1, 1}, {5, 9}, {40, 603}})
    add("log_softmax_" + std::to_string(words), {{{n, words}}}, [](Tape& t, Inputs x) {
      const Var y = copy_of(t, x[0]);
      const Var z{t.parameter_tensor(x[0].value.shape), nullptr};
      t.k.log_softmax(z.value, x[0].value);
      t.k.log_softmax(y.value, y.value);  // in place is allowed
      const Var first{t.parameter_tensor({x[0].value.rows(), (x[0].value.cols() + 1) / 2}), nullptr};
      t.k.log_softmax(first.value, x[0].value);
      return std::vector{y, z, first};
    });
}

}  // namespace qn::test
