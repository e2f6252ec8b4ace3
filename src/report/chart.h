// Charts as inline SVG: axes with nice steps, lines, bands and marks; no script, colours by the page's CSS variables.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace qn {

struct ChartPoint {
  double x = 0.0, y = 0.0;
};

/// What a line looks like: colour, dashes and mark follow from its number, so that no two of the first 28 are alike.
struct ChartLine {
  std::string label;  ///< shown under the pointer
  int style = 0;
  std::vector<ChartPoint> points;  ///< by x; what is not finite is a gap
  bool marks = false;              ///< at every point
  bool faint = false;
  bool thick = false;
};

/// A place on the x axis that is worth knowing: a stage, a spike.
struct ChartFlag {
  double x = 0.0;
  std::string label;
  int style = -1;  ///< of a run; negative: a thin line across the chart, for all
};

struct Chart {
  std::string title;
  std::string x_unit;  ///< below the axis: "updates"
  std::string y_unit;  ///< above the axis: "bits per token"
  bool log_y = false;
  bool zero = false;     ///< the y axis begins at 0
  bool whole_x = false;  ///< only whole numbers have a place on the x axis
  std::vector<ChartLine> lines;
  std::vector<ChartFlag> flags;
};

/// Many points as few: of every part of the x axis its smallest, its largest and its mean.
struct ThinnedLine {
  std::vector<ChartPoint> low, high, mean;
};
/// Points that are not finite are left out; `parts` equal parts of the range of x, those without points left out.
ThinnedLine thinned(const std::vector<ChartPoint>& points, int64_t parts);

/// "12,345", "0.25", "1e-07": a number beside an axis or in a table, at most `digits` significant digits unless it is
/// whole.
std::string number_text(double value, int digits = 4);

/// Steps of 1, 2 or 5 times a power of ten within [low, high], `most` at most, 2 at least where low < high.
std::vector<double> axis_ticks(double low, double high, int most);
/// The same for a logarithmic axis; both limits above 0.
std::vector<double> log_axis_ticks(double low, double high, int most);

/// The chart as <svg>; lines of more than 2 * `parts` points are drawn as a band with their mean. Empty when no line
/// has a point to draw.
std::string svg_of(const Chart& chart, int64_t parts);
/// A line as it looks in charts, for legends.
std::string line_sample(int style);

/// For HTML text and attributes; bytes that are no UTF-8 or control characters become '?'.
std::string escaped(const std::string& text);

}  // namespace qn
