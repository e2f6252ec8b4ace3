// Stands in for NCCL in programs built without it.
#include <spdlog/spdlog.h>

#include "comm/device_communicator.h"

namespace qn {

bool device_communicator_may_share() { return false; }

std::unique_ptr<DeviceCommunicator> make_device_communicator(Communicator&, void*) {
  spdlog::info(
      "this program was built without NCCL: gradients are summed over ranks in host memory (configure where nccl.h and "
      "libnccl are installed, or name them with -DNCCL_INCLUDE_DIR=... -DNCCL_LIBRARY=...)");
  return nullptr;
}

}  // namespace qn
