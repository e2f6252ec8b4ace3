#include "report/chart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace qn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

TEST(AxisTicks, AreRoundAndWithin) {
  EXPECT_THAT(axis_ticks(0.0, 100.0, 6), ElementsAre(0, 20, 40, 60, 80, 100));
  EXPECT_THAT(axis_ticks(3.7, 4.6, 5), ElementsAre(3.8, 4, 4.2, 4.4, 4.6));
  EXPECT_THAT(axis_ticks(-0.5, 0.5, 3), ElementsAre(-0.5, 0, 0.5));
  EXPECT_THAT(axis_ticks(5.0, 5.0, 5), ElementsAre(5));
  for (const double scale : {1e-12, 1e-3, 1.0, 7.3, 1e9})
    for (int most = 2; most < 9; ++most) {
      const std::vector<double> ticks = axis_ticks(1.3 * scale, 2.9 * scale, most);
      EXPECT_LE(std::ssize(ticks), most);
      EXPECT_GE(ticks.size(), 1U);
      for (const double tick : ticks) EXPECT_TRUE(tick >= 1.3 * scale && tick <= 2.9 * scale) << tick;
    }
}

TEST(LogAxisTicks, AreDecadesOrWithinOne) {
  EXPECT_THAT(log_axis_ticks(1.0, 100.0, 8), ElementsAre(1, 2, 5, 10, 20, 50, 100));
  EXPECT_THAT(log_axis_ticks(0.5, 2e4, 6), ElementsAre(1, 10, 100, 1000, 10000));
  EXPECT_THAT(log_axis_ticks(31.0, 38.0, 6), Not(IsEmpty()));
  EXPECT_LE(log_axis_ticks(1e-30, 1e30, 6).size(), 6U);
  for (const double tick : log_axis_ticks(0.011, 0.019, 6)) EXPECT_TRUE(tick >= 0.011 && tick <= 0.019);
}

TEST(NumberText, SeparatesThousands) {
  EXPECT_EQ(number_text(1234567), "1,234,567");
  EXPECT_EQ(number_text(0.25), "0.25");
  EXPECT_EQ(number_text(-12), "-12");
  EXPECT_EQ(number_text(86591.68), "86,592");
  EXPECT_EQ(number_text(1e-7), "1e-07");
  EXPECT_EQ(number_text(NAN), "–");
  EXPECT_EQ(number_text(INFINITY), "–");
}

TEST(Thinned, KeepsTheSmallestAndTheLargest) {
  std::vector<ChartPoint> points;
  for (int i = 0; i < 100000; ++i) points.push_back({static_cast<double>(i), std::sin(i * 0.1)});
  points[54321].y = 99.0;
  points[777].y = -99.0;
  points[4].y = NAN;
  const ThinnedLine thin = thinned(points, 200);
  EXPECT_EQ(thin.mean.size(), 200U);
  const auto by_y = [](const ChartPoint& a, const ChartPoint& b) { return a.y < b.y; };
  EXPECT_EQ(std::max_element(thin.high.begin(), thin.high.end(), by_y)->y, 99.0);
  EXPECT_EQ(std::min_element(thin.low.begin(), thin.low.end(), by_y)->y, -99.0);
  EXPECT_NEAR(std::max_element(thin.high.begin(), thin.high.end(), by_y)->x, 54321.0, 500.0);
  EXPECT_THAT(thinned({}, 10).mean, IsEmpty());
  EXPECT_EQ(thinned({{3.0, 1.0}}, 10).mean.size(), 1U);
}

TEST(Svg, GapsLonelyPointsAndNothing) {
  Chart chart;
  EXPECT_THAT(svg_of(chart, 100), IsEmpty());
  chart.lines.push_back({.label = "a", .points = {{1, NAN}}});
  EXPECT_THAT(svg_of(chart, 100), IsEmpty());
  chart.lines[0].points = {{1, 2}, {2, NAN}, {3, 4}, {4, 5}};
  const std::string gap = svg_of(chart, 100);
  EXPECT_THAT(gap, HasSubstr("<circle"));  // the point before the gap
  EXPECT_THAT(gap, Not(HasSubstr("nan")));
  chart.lines[0].points = {{7, 3}};
  EXPECT_THAT(svg_of(chart, 100), HasSubstr("<circle"));
  chart.log_y = true;
  chart.lines[0].points = {{1, 0.0}, {2, -1.0}, {3, 10.0}, {4, 1000.0}};
  EXPECT_THAT(svg_of(chart, 100), Not(HasSubstr("nan")));
  EXPECT_THAT(svg_of(chart, 100), Not(HasSubstr("inf")));
}

TEST(Escaped, LetsNoMarkupThrough) {
  EXPECT_EQ(escaped("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
  EXPECT_EQ(escaped("größe – ok"), "größe – ok");
  EXPECT_EQ(escaped(std::string("a\0b\x1b", 4)), "a?b?");
  EXPECT_EQ(escaped("\xff\xc3"), "??");
}

}  // namespace
}  // namespace qn
