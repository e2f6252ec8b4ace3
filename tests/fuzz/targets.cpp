#include "targets.h"

namespace qn::fuzz {

const std::vector<Target>& targets() {
  static const std::vector<Target> all = [] {
    std::vector<Target> found;
    for (const auto& some : {text_targets(), data_targets(), image_targets(), model_targets()})
      found.insert(found.end(), some.begin(), some.end());
    return found;
  }();
  return all;
}

}  // namespace qn::fuzz
