// Forward and backward of micro-batches as graphs: a device gets a whole pass in one call.
#pragma once

#include <functional>
#include <map>
#include <set>

#include "nn/parameters.h"
#include "ops/dry_kernels.h"

namespace qn {

/// Goes through every pass without computing first. If it is the same as an earlier one but for its data, its graph is
/// launched; the second time that a pass comes, it is recorded; the first time, it is computed as it is. Where passes
/// hardly ever come again, all are computed from some time on.
class GraphedPasses {
 public:
  /// `kernels` must have graphs. Passes take their memory from `arena`, and their gradients go to `store`.
  GraphedPasses(const Kernels& kernels, Arena& arena, DType dtype, ParameterStore& store);
  ~GraphedPasses();
  GraphedPasses(const GraphedPasses&) = delete;
  GraphedPasses& operator=(const GraphedPasses&) = delete;

  /// `pass` queues kernels on the tape that it is given and does nothing that must not be done twice. Empties the
  /// arena.
  void run(const PassOptions& options, const std::function<void(Tape&)>& pass);

  /// What became of the passes so far.
  struct Counts {
    int64_t computed = 0, recorded = 0, launched = 0;
  };
  const Counts& counts() const { return counts_; }

 private:
  void* record(const PassOptions& options, const std::function<void(Tape&)>& pass);
  void compute(const PassOptions& options, const std::function<void(Tape&)>& pass);
  void compute_only(const PassOptions& options, const std::function<void(Tape&)>& pass);
  void release_graphs();

  const Kernels& kernels_;
  Arena& arena_;
  ParameterStore& store_;
  DryRun dry_;
  Tape dry_tape_, tape_;
  std::map<uint64_t, void*> graphs_;
  std::set<uint64_t> seen_;
  Counts counts_;
};

}  // namespace qn
