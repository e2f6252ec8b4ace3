#include "train/late_copies.h"

#include <cstring>
#include <utility>

#include "core/fault_point.h"
#include "train/divergence.h"

namespace qn {

std::shared_future<void> LateCopies::start(std::vector<StateDict::LateCopy> copies,
                                           std::shared_ptr<const StateDict> state) {
  QN_ASSERT(!done_.valid(), "copies are still being made");
  done_ = std::async(std::launch::async, [copies = std::move(copies), state = std::move(state)] {
            fault_point("checkpoint.copying");
            for (const StateDict::LateCopy& copy : copies) std::memcpy(copy.to.data, copy.from.data, copy.from.bytes());
            check_finite(*state);
          }).share();
  return done_;
}

void LateCopies::finish() {
  if (done_.valid()) std::exchange(done_, {}).get();
}

}  // namespace qn
