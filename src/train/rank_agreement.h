// Ranks must do the same: those that differ in what they were given, or in what they have come to, are named.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "nn/parameters.h"
#include "train/task.h"

namespace qn {

/// What all ranks should have alike, each rank's in turn.
struct RankValues {
  std::vector<std::string> values, hosts;

  bool agree() const;
  /// The value of the largest group of ranks; of several as large, that of rank 0's or the lowest rank's.
  size_t majority() const;
  /// "rank 2 on node7 and rank 3 on node8": those that have not the majority's value.
  std::string others() const;
};

/// Gathers every rank's value with its host. Collective.
RankValues gather_values(Communicator& comm, const std::string& own);

/// Throws qn::Error on every rank, naming the ranks whose program or configuration is not that of the others, and the
/// keys that differ. Of one version, other builds are a warning: they may round differently. Collective.
void check_same_program(Communicator& comm, const std::string& config_text);

/// The same for the contents of the data that a task has opened, as its part of a checkpoint tells them.
void check_same_task(Communicator& comm, const Task& task);

/// Throws qn::Error on every rank, naming the ranks whose parameters are not, bit for bit, those of the others after
/// `update` updates. Collective; reads all parameters once.
void check_same_parameters(Communicator& comm, const ParameterStore& store, const Kernels& kernels, int64_t update);

}  // namespace qn
