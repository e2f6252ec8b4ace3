#include "support/golden.h"

#include <cstdlib>
#include <vector>

namespace qn::test {
namespace {

std::optional<std::filesystem::path> find(const char* variable, std::vector<std::filesystem::path> folders,
                                          const std::string& name) {
  if (const char* chosen = std::getenv(variable)) folders.insert(folders.begin(), chosen);
  for (const std::filesystem::path& folder : folders) {
    if (std::filesystem::exists(folder / name)) return folder / name;
  }
  return std::nullopt;
}

const std::filesystem::path kSource = QN_SOURCE_DIR;

}  // namespace

std::optional<std::filesystem::path> golden_file(const std::string& name) {
  return find("QN_GOLDEN_DIR", {kSource / "tests/golden"}, name);
}

std::optional<std::filesystem::path> shared_data(const std::string& name) {
  return find("QN_DATA_DIR", {kSource / "../shared/data"}, name);
}

}  // namespace qn::test
