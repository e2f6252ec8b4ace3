#include "train/replay.h"

#include "core/finite.h"
#include "ops/host_access.h"

namespace qn {

// The arena is a new one, whose memory is all zeros: what no kernel has written is finite.
Replay::Replay(Module& module, const Kernels& kernels, DType dtype)
    : module_(module),
      kernels_(kernels),
      checked_(kernels),
      arena_(*kernels.memory),
      tape_(checked_.kernels(), arena_, dtype, {}) {
  module.parameters().begin_gradients();
  kernels.fill(module.parameters().grads(), 0.0);
  for (const auto& p : module.parameters().all()) {
    checked_.name(p->value, p->name);
    checked_.name(p->slot.grad, "the gradient of " + p->name);
  }
  for (const auto& b : module.buffers().all()) checked_.name(b->value.view(), b->name);
}

std::string Replay::check_parameters() const {
  for (const auto& p : module_.parameters().all()) {
    const HostView view(kernels_, p->value);
    if (const std::string found = describe_non_finite(view.view()); !found.empty())
      return fmt::format("{} itself is not finite ({})", p->name, found);
  }
  return {};
}

std::string Replay::run(const MicroBatch& micro, const PassOptions& options) {
  if (const std::string found = check_parameters(); !found.empty())
    return fmt::format("{}: {}", options.micro_batch + 1, found);
  const char* direction = "forward";
  try {
    checked_.begin();
    tape_.restart(options);
    micro.losses(tape_);
    direction = "backward";
    tape_.backward();
    arena_.reset();
  } catch (const NonFiniteResult& result) {
    return fmt::format("{}: the first values that are not finite come out of its {} pass, in {}",
                       options.micro_batch + 1, direction, result.what());
  }
  return {};
}

}  // namespace qn
