// Where tests find reference vectors and data sets. Reference vectors are part of the project: a test whose file is
// missing fails. Data sets are not: tests that need one skip where it is absent.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <optional>
#include <string>

namespace qn::test {

/// A file of reference vectors: looked for in $QN_GOLDEN_DIR and tests/golden of the source tree.
std::optional<std::filesystem::path> golden_file(const std::string& name);

/// A data set file or folder, such as "wikitext-2/train.txt": in $QN_DATA_DIR and ../shared/data of the source tree.
std::optional<std::filesystem::path> shared_data(const std::string& name);

}  // namespace qn::test

/// Defines `var` (a path) or fails the test. For test bodies and other functions that return nothing.
#define QN_GOLDEN(var, name)                                                                                \
  const std::optional<std::filesystem::path> var##_lookup = ::qn::test::golden_file(name);                  \
  if (!var##_lookup)                                                                                        \
    FAIL() << (name)                                                                                        \
           << " is missing: restore tests/golden of the repository (git checkout -- tests/golden), or set " \
              "QN_GOLDEN_DIR to a folder that has it; see tests/golden/README.md";                          \
  const std::filesystem::path& var = *var##_lookup

/// Defines `var` (a path) or skips the test; otherwise as above.
#define QN_DATA_OR_SKIP(var, name)                                                                        \
  const std::optional<std::filesystem::path> var##_lookup = ::qn::test::shared_data(name);                \
  if (!var##_lookup) GTEST_SKIP() << (name) << " is not here: set QN_DATA_DIR to the folder that has it"; \
  const std::filesystem::path& var = *var##_lookup
