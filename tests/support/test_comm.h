// The communicator of a test program: the ranks when it was started by launch/run -n N, one process otherwise.
#pragma once

#include "comm/communicator.h"

namespace qn::test {

Communicator& comm();

}  // namespace qn::test
