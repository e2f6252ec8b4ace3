// Where tests find reference vectors and data sets; tests that need them skip with a clear message where they are
// absent.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <optional>
#include <string>

namespace qn::test {

/// A file of reference vectors: looked for in $QN_GOLDEN_DIR, tests/golden and ../shared/golden of the source tree.
std::optional<std::filesystem::path> golden_file(const std::string& name);

/// A data set file or folder, such as "wikitext-2/train.txt": in $QN_DATA_DIR and ../shared/data of the source tree.
std::optional<std::filesystem::path> shared_data(const std::string& name);

}  // namespace qn::test

/// Defines `var` (a path) or skips the test. For test bodies and other functions that return nothing.
#define QN_PATH_OR_SKIP(var, lookup, name, variable)                                                       \
  const std::optional<std::filesystem::path> var##_lookup = lookup(name);                                  \
  if (!var##_lookup) GTEST_SKIP() << (name) << " is not here: set " variable " to the folder that has it"; \
  const std::filesystem::path& var = *var##_lookup

#define QN_GOLDEN_OR_SKIP(var, name) QN_PATH_OR_SKIP(var, ::qn::test::golden_file, name, "QN_GOLDEN_DIR")
#define QN_DATA_OR_SKIP(var, name) QN_PATH_OR_SKIP(var, ::qn::test::shared_data, name, "QN_DATA_DIR")
