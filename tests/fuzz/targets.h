// What is fuzzed: functions that take the content of a file from anywhere. Each may refuse it with a qn::Error;
// whatever else happens (another exception, a crash, more memory than the file can account for, a hang) is a finding.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qn::fuzz {

using Bytes = std::span<const std::byte>;

struct Target {
  const char* name;
  /// Throws qn::Error where the input is refused.
  void (*read)(Bytes input);
  /// Inputs that are accepted, made by this program's own writers.
  std::vector<std::string> (*seeds)();
};

const std::vector<Target>& targets();

// For targets:

/// An input of several files: each but the last begins with its length in 4 bytes, little-endian; what is missing is
/// empty.
std::vector<std::string> parts_of(Bytes input, size_t count);
std::string joined(const std::vector<std::string>& parts);

/// Writes `content` to a file of this name in a folder of this process in memory; returns its path.
std::string file_with(std::string_view content, const std::string& name);
std::string content_of(const std::string& path);

inline Bytes bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }
inline std::string text_of(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

// What these files have. A fuzzer is linked with one of them only.
std::vector<Target> text_targets();
std::vector<Target> data_targets();
std::vector<Target> image_targets();
std::vector<Target> model_targets();

}  // namespace qn::fuzz
