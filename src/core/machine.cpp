#include "core/machine.h"

#include <unistd.h>

#include <array>
#include <fstream>

namespace qn {

std::string host_name() {
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

std::string machine_id() {
  std::ifstream in("/proc/sys/kernel/random/boot_id");
  std::string boot;
  std::getline(in, boot);
  return host_name() + ' ' + boot;
}

}  // namespace qn
