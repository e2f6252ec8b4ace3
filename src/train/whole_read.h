// Reading a file that its writer replaces now and then (atomically): all parts come from one and the same version.
#pragma once

#include <sys/stat.h>

#include <array>
#include <filesystem>

#include "core/error.h"

namespace qn {

/// Which version of a file a path leads to; all zeros when there is none.
inline std::array<int64_t, 4> version_at(const std::filesystem::path& path) {
  struct stat s {};
  if (::stat(path.c_str(), &s) != 0) return {};
  return {static_cast<int64_t>(s.st_ino), s.st_size, s.st_mtim.tv_sec, s.st_mtim.tv_nsec};
}

/// What `read` returns or throws, which may open the file several times; it is called again when the file was replaced
/// meanwhile.
template <typename Read>
auto whole_read(const std::filesystem::path& path, Read&& read) {
  constexpr int kTries = 20;
  for (int i = 0; i < kTries; ++i) {
    const auto before = version_at(path);
    try {
      auto result = read();
      if (version_at(path) == before) return result;
    } catch (const Error&) {
      if (version_at(path) == before) throw;
    }
  }
  fail("{} is replaced faster than it can be read: read another checkpoint, or a copy", path.string());
}

}  // namespace qn
