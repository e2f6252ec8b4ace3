// Sending a state over the ranks, so that only rank 0 needs to see the checkpoint's disk.
#pragma once

#include "comm/communicator.h"
#include "nn/state_dict.h"

namespace qn {

/// Gives every rank rank 0's state; other ranks pass an empty one.
void broadcast_state(Communicator& comm, StateDict& state);

}  // namespace qn
