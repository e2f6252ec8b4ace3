#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "targets.h"

namespace qn::fuzz {
namespace {

namespace fs = std::filesystem;

/// Removed when the process ends as it should.
struct Folder {
  fs::path path;
  Folder() {
    const fs::path memory = "/dev/shm";
    path = (fs::is_directory(memory) ? memory : fs::temp_directory_path()) / ("qn-fuzz-" + std::to_string(::getpid()));
    fs::create_directories(path);
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

}  // namespace

std::vector<std::string> parts_of(Bytes input, size_t count) {
  std::vector<std::string> parts;
  while (parts.size() + 1 < count) {
    size_t length = 0;
    for (size_t i = 0; i < 4 && i < input.size(); ++i) length |= static_cast<size_t>(input[i]) << (8 * i);
    input = input.subspan(std::min<size_t>(4, input.size()));
    length = std::min(length, input.size());
    parts.push_back(text_of(input.first(length)));
    input = input.subspan(length);
  }
  parts.push_back(text_of(input));
  return parts;
}

std::string joined(const std::vector<std::string>& parts) {
  std::string all;
  for (size_t p = 0; p < parts.size(); ++p) {
    if (p + 1 < parts.size())
      for (const int shift : {0, 8, 16, 24}) all += static_cast<char>(parts[p].size() >> shift);
    all += parts[p];
  }
  return all;
}

std::string file_with(std::string_view content, const std::string& name) {
  static const Folder folder;
  const fs::path path = folder.path / name;
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary | std::ios::trunc) << content;
  return path.string();
}

std::string content_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

}  // namespace qn::fuzz
