#include "compress/name_pattern.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "support/capture.h"

namespace qn::test {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;

std::string refusal(const std::string& pattern) {
  return error_of([&] { NamePattern(pattern, "rules.yaml:3"); });
}

/// The rows of python_patterns.jsonl: what Python makes of many patterns.
std::vector<json> python_rows() {
  std::ifstream file(std::filesystem::path(QN_SOURCE_DIR) / "tests/compress/python_patterns.jsonl");
  std::vector<json> rows;
  for (std::string line; std::getline(file, line);)
    if (!line.starts_with('#')) rows.push_back(json::parse(line));
  return rows;
}

TEST(NamePattern, MatchesWhatPythonMatches) {
  size_t subjects = 0;
  for (const json& row : python_rows()) {
    if (row[1].is_string()) continue;
    const NamePattern pattern(row[0].get<std::string>(), "");
    for (size_t i = 1; i < row.size(); ++i, ++subjects) {
      const std::optional<size_t> length = pattern.match_length(row[i][0].get<std::string>());
      EXPECT_EQ(length ? static_cast<int64_t>(*length) : -1, row[i][1].get<int64_t>()) << row[0] << " " << row[i];
    }
  }
  EXPECT_GT(subjects, 0u);
}

TEST(NamePattern, RefusesWhatPythonRefuses) {
  size_t refused = 0;
  for (const json& row : python_rows()) {
    if (!row[1].is_string()) continue;
    ++refused;
    const auto pattern = row[0].get<std::string>();
    const auto at = row[2].get<int>();
    const std::string message =
        row[1].get<std::string>() + (at > 0 ? fmt::format(" (at character {})", at) : std::string());
    EXPECT_THAT(refusal(pattern), AllOf(HasSubstr("rules.yaml:3"), HasSubstr(pattern), EndsWith(message)));
  }
  EXPECT_GT(refused, 0u);
}

TEST(NamePattern, RefusesWhatIsBeyondPcre2) {
  EXPECT_THAT(refusal(R"(a\N{DIGIT ONE})"), AllOf(HasSubstr(R"(\uXXXX)"), HasSubstr("at character 2")));
  EXPECT_THAT(refusal("ab{65536}"), AllOf(HasSubstr("65535 repetitions"), HasSubstr("at character 3")));
  EXPECT_THAT(refusal("((a{1000}){1000}){1000}"), HasSubstr("more than PCRE2 can do"));
  EXPECT_THAT(refusal(std::string(1000, '(')), HasSubstr("nested too deeply"));
  EXPECT_THAT(refusal("\xff"), HasSubstr("not valid UTF-8"));
}

}  // namespace
}  // namespace qn::test
