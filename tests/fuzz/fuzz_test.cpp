// The fuzz targets without a fuzzer: their seeds are accepted, what fuzzing has found (findings/TARGET/) and seeds with
// some damage are refused or accepted, and nothing else.
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "core/error.h"
#include "targets.h"

namespace qn::fuzz {
namespace {

namespace fs = std::filesystem;

/// Empty: accepted or refused as it should be.
std::string surprise_of(const Target& target, const std::string& input) {
  try {
    target.read(bytes_of(input));
  } catch (const Error&) {
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

std::string damaged(std::string input, std::mt19937_64& random) {
  const auto below = [&](size_t end) { return end == 0 ? 0 : static_cast<size_t>(random() % end); };
  const size_t at = below(input.size());
  switch (random() % 5) {
    case 0:
      input[at] = static_cast<char>(input[at] ^ 1 << random() % 8);
      break;
    case 1:
      input[at] = static_cast<char>("\xff\x00\x7f\x80"[random() % 4]);
      break;
    case 2:
      input.resize(at);
      break;
    case 3:
      input.insert(at, input.substr(below(input.size()), 1 + below(16)));
      break;
    default:
      input.erase(at, 1 + below(16));
  }
  return input;
}

class FuzzTarget : public testing::TestWithParam<Target> {
 protected:
  void SetUp() override { spdlog::set_level(spdlog::level::off); }
};

TEST_P(FuzzTarget, AcceptsItsSeeds) {
  for (const std::string& seed : GetParam().seeds()) EXPECT_NO_THROW(GetParam().read(bytes_of(seed)));
}

TEST_P(FuzzTarget, SurvivesWhatWasFound) {
  const fs::path folder = fs::path(QN_SOURCE_DIR) / "tests/fuzz/findings" / GetParam().name;
  if (!fs::is_directory(folder)) GTEST_SKIP() << "nothing found so far";
  for (const auto& entry : fs::directory_iterator(folder))
    EXPECT_EQ(surprise_of(GetParam(), content_of(entry.path().string())), "") << entry.path();
}

TEST_P(FuzzTarget, SurvivesSomeDamage) {
  std::mt19937_64 random(1);
  for (const std::string& seed : GetParam().seeds())
    for (int i = 0; i < 60; ++i) {
      const std::string input = damaged(seed, random);
      EXPECT_EQ(surprise_of(GetParam(), input), "") << "damage " << i;
    }
}

INSTANTIATE_TEST_SUITE_P(All, FuzzTarget, testing::ValuesIn(targets()),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace qn::fuzz
