#include "core/number_text.h"

#include <gtest/gtest.h>

namespace qn::test {
namespace {

TEST(NumberText, HasAPoint) {
  EXPECT_EQ(number_with_fraction("3"), "3.0");
  EXPECT_EQ(number_with_fraction("1e-08"), "1.0e-08");
  EXPECT_EQ(number_with_fraction("-2.5e+20"), "-2.5e+20");
}

TEST(NumberText, OfJsonLeavesTextsAndOtherNumbersAlone) {
  EXPECT_EQ(json_for_yaml(R"({"lr":1e-07,"n":12,"x":-2e+30,"y":0.5,"t":"1e-07 \"2e-3","l":[1e-3,null]})"),
            R"({"lr":1.0e-07,"n":12,"x":-2.0e+30,"y":0.5,"t":"1e-07 \"2e-3","l":[1.0e-3,null]})");
  EXPECT_EQ(json_for_yaml(R"({"a":"\\","b":1e5})"), R"({"a":"\\","b":1.0e5})");
}

}  // namespace
}  // namespace qn::test
