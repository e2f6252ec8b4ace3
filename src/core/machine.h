// Which machine this process runs on.
#pragma once

#include <string>

namespace qn {

/// For people.
std::string host_name();

/// For comparing: equal for two processes that run on one machine and see one network (containers may share either
/// the kernel or the name).
std::string machine_id();

}  // namespace qn
