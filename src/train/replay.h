// Finding out where a run has diverged: an update's micro-batches once more, looking at the result of every op.
#pragma once

#include <string>

#include "core/arena.h"
#include "ops/checked_kernels.h"
#include "train/task.h"

namespace qn {

class Replay {
 public:
  /// Gradients of `module` are overwritten, nothing else of it.
  Replay(Module& module, const Kernels& kernels, DType dtype);
  /// Forward and backward; gradients add up over calls as they do in an update. Returns what is not finite first:
  /// "3: NAME itself is not finite (nan at element 5 of 64)", "3: the first values that are not finite come out of its
  /// forward pass, in matmul with NAME: ...", 3 being the micro-batch, from 1; empty when everything is finite.
  std::string run(const MicroBatch& micro, const PassOptions& options);

 private:
  std::string check_parameters() const;

  Module& module_;
  const Kernels& kernels_;
  CheckedKernels checked_;
  Arena arena_;
  Tape tape_;
};

}  // namespace qn
