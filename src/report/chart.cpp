#include "report/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "core/text.h"

namespace qn {
namespace {

// Sizes in pixels of a chart that is as wide as on a telephone; wider pages show several side by side.
constexpr double kWidth = 420, kHeight = 250, kTop = 26, kRight = 14, kBottom = 40, kCharacter = 6.9;
constexpr int kColours = 7;

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  void add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool empty() const { return low > high; }
};

const char* dashes(int style) {
  constexpr std::array<const char*, 4> kDashes{"", " stroke-dasharray=\"6 3\"", " stroke-dasharray=\"2 3\"",
                                               " stroke-dasharray=\"8 3 2 3\""};
  return kDashes[static_cast<size_t>(style / kColours) % kDashes.size()];
}

std::string colour(int style) { return fmt::format("var(--c{})", style % kColours); }

/// Another shape for every colour, so that colours are not all there is to tell runs apart by.
std::string mark_at(double x, double y, int style, double r) {
  const std::string fill = fmt::format("fill=\"{}\"", colour(style));
  const auto polygon = [&](std::initializer_list<std::pair<double, double>> corners) {
    std::string points;
    for (const auto& [dx, dy] : corners) points += fmt::format("{:.1f},{:.1f} ", x + dx * r, y + dy * r);
    return fmt::format("<polygon points=\"{}\" {}/>", points, fill);
  };
  switch (style % kColours) {
    case 0:
      return fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:.1f}\" {}/>", x, y, r, fill);
    case 1:
      return polygon({{-1, -1}, {1, -1}, {1, 1}, {-1, 1}});
    case 2:
      return polygon({{0, -1.3}, {1.2, 0.9}, {-1.2, 0.9}});
    case 3:
      return polygon({{0, -1.4}, {1.4, 0}, {0, 1.4}, {-1.4, 0}});
    case 4:
      return polygon({{0, 1.3}, {1.2, -0.9}, {-1.2, -0.9}});
    case 5:
      return polygon({{-1.3, -0.5}, {1.3, -0.5}, {1.3, 0.5}, {-1.3, 0.5}});
    default:
      return polygon({{-0.5, -1.3}, {0.5, -1.3}, {0.5, 1.3}, {-0.5, 1.3}});
  }
}

/// From values to pixels.
class Frame {
 public:
  Frame(const Chart& chart, Range x, Range y) : log_(chart.log_y), whole_x_(chart.whole_x), x_(x), y_(y) {
    if (x_.low == x_.high) widen(x_, 0.5);
    if (chart.zero) y_.low = std::min(y_.low, 0.0);
    if (log_) {
      y_ = {std::log10(y_.low), std::log10(y_.high)};
      widen(y_, y_.low == y_.high ? 0.1 : 0.04 * (y_.high - y_.low));
    } else {
      const double floor = chart.zero ? y_.low : -std::numeric_limits<double>::infinity();
      widen(y_, y_.low == y_.high ? std::max(std::abs(y_.low) * 0.05, 1e-12) : 0.05 * (y_.high - y_.low));
      y_.low = std::max(y_.low, floor);
    }
    y_ticks_ =
        log_ ? log_axis_ticks(std::pow(10.0, y_.low), std::pow(10.0, y_.high), 6) : axis_ticks(y_.low, y_.high, 6);
    size_t longest = 0;
    for (const double tick : y_ticks_) longest = std::max(longest, number_text(tick).size());
    left_ = 12.0 + kCharacter * static_cast<double>(longest);
  }
  double x(double value) const { return left_ + (value - x_.low) / (x_.high - x_.low) * (right() - left_); }
  double y(double value) const {
    const double v = log_ ? std::log10(value) : value;
    return bottom() - (v - y_.low) / (y_.high - y_.low) * (bottom() - kTop);
  }
  bool shows(double value) const { return std::isfinite(value) && (!log_ || value > 0.0); }
  double left() const { return left_; }
  static double right() { return kWidth - kRight; }
  static double bottom() { return kHeight - kBottom; }
  const std::vector<double>& y_ticks() const { return y_ticks_; }
  /// As many as have room for their numbers.
  std::vector<double> x_ticks() const {
    for (int most = 7; most > 2; --most) {
      std::vector<double> ticks = axis_ticks(x_.low, x_.high, most);
      if (whole_x_) std::erase_if(ticks, [](double tick) { return tick != std::round(tick); });
      size_t longest = 0;
      for (const double tick : ticks) longest = std::max(longest, number_text(tick).size());
      if (static_cast<double>(ticks.size()) * (kCharacter * static_cast<double>(longest) + 12.0) < right() - left_)
        return ticks;
    }
    return axis_ticks(x_.low, x_.high, 2);
  }

 private:
  static void widen(Range& range, double by) { range = {range.low - by, range.high + by}; }
  bool log_, whole_x_;
  Range x_, y_;
  double left_ = 0.0;
  std::vector<double> y_ticks_;
};

std::string path_of(const std::vector<ChartPoint>& points, const Frame& frame) {
  std::string path;
  bool open = false;
  for (const ChartPoint& p : points) {
    if (!frame.shows(p.y)) {
      open = false;
      continue;
    }
    path += fmt::format("{}{:.1f},{:.1f}", open ? " " : "M", frame.x(p.x), frame.y(p.y));
    open = true;
  }
  return path;
}

std::string stroked(const std::string& path, const ChartLine& line) {
  // The first ones are drawn first, and wider, so that lines that lie on each other are all seen.
  const double extra = 0.6 * std::max(0, 2 - line.style % kColours);
  return fmt::format(
      "<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-linejoin=\"round\"{}{}>"
      "<title>{}</title></path>",
      path, colour(line.style), (line.thick ? 1.9 : 1.3) + extra, dashes(line.style),
      line.faint ? " opacity=\"0.55\"" : "", escaped(line.label));
}

std::string drawn(const ChartLine& line, const Frame& frame, int64_t parts) {
  if (std::ssize(line.points) > 2 * parts) {
    ThinnedLine thin = thinned(line.points, parts);
    std::vector<ChartPoint> outline = thin.high;
    outline.insert(outline.end(), thin.low.rbegin(), thin.low.rend());
    std::erase_if(outline, [&](const ChartPoint& p) { return !frame.shows(p.y); });
    return fmt::format("<path d=\"{}Z\" fill=\"{}\" opacity=\"0.22\"/>", path_of(outline, frame), colour(line.style)) +
           stroked(path_of(thin.mean, frame), line);
  }
  std::string text = stroked(path_of(line.points, frame), line);
  const auto lonely = [&](size_t i) {
    const auto shown = [&](size_t j) { return j < line.points.size() && frame.shows(line.points[j].y); };
    return shown(i) && !shown(i + 1) && (i == 0 || !shown(i - 1));
  };
  for (size_t i = 0; i < line.points.size(); ++i)
    if ((line.marks && frame.shows(line.points[i].y)) || lonely(i))
      text += mark_at(frame.x(line.points[i].x), frame.y(line.points[i].y), line.style, 2.6);
  return text;
}

std::string axes(const Chart& chart, const Frame& frame) {
  std::string text;
  for (const double tick : frame.y_ticks())
    text += fmt::format(
        "<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{1:.1f}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\"/>"
        "<text x=\"{3:.1f}\" y=\"{4:.1f}\" text-anchor=\"end\">{5}</text>",
        frame.left(), Frame::right(), frame.y(tick), frame.left() - 5, frame.y(tick) + 3.8, number_text(tick));
  for (const double tick : frame.x_ticks())
    text += fmt::format(
        "<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.1f}\" y2=\"{2:.1f}\"/>"
        "<text x=\"{0:.1f}\" y=\"{3:.1f}\" text-anchor=\"middle\">{4}</text>",
        frame.x(tick), kTop, Frame::bottom(), Frame::bottom() + 15, number_text(tick));
  text += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>", Frame::right(), kHeight - 8,
                      escaped(chart.x_unit));
  text += fmt::format("<text x=\"2\" y=\"13\">{}{}</text>", escaped(chart.y_unit), chart.log_y ? ", log scale" : "");
  return text;
}

std::string flag(const ChartFlag& f, const Frame& frame) {
  const double x = frame.x(f.x);
  if (f.style < 0)
    return fmt::format(
        "<line class=\"flag\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.1f}\" y2=\"{2:.1f}\">"
        "<title>{3}</title></line>",
        x, kTop, Frame::bottom(), escaped(f.label));
  return fmt::format("<path d=\"M{:.1f},{:.1f} l4,-7 l-8,0 Z\" fill=\"{}\"><title>{}</title></path>", x, kTop + 8,
                     colour(f.style), escaped(f.label));
}

}  // namespace

std::string escaped(const std::string& text) {
  std::string out;
  // Whole UTF-8 sequences pass; nlohmann has let nothing else in, but names of folders may hold anything.
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const size_t length = c < 0x80 ? 1 : c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC2 ? 2 : 0;
    bool whole = length > 0 && c < 0xF5 && i + length <= text.size();
    for (size_t k = 1; whole && k < length; ++k) whole = (static_cast<unsigned char>(text[i + k]) & 0xC0) == 0x80;
    if (!whole || (c < ' ' && c != '\n' && c != '\t') || c == 0x7F)
      out += '?';
    else if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else
      out += text.substr(i, length);
    if (whole) i += length - 1;
  }
  return out;
}

std::string number_text(double value, int digits) {
  if (!std::isfinite(value)) return "–";
  constexpr double kWhole = 1e15;
  if (value == std::round(value) && std::abs(value) < kWhole) return group_digits(std::llround(value));
  if (std::abs(value) >= std::pow(10.0, digits) && std::abs(value) < kWhole) return group_digits(std::llround(value));
  return fmt::format("{:.{}g}", value, digits);
}

std::vector<double> axis_ticks(double low, double high, int most) {
  std::vector<double> ticks;
  if (!(high > low)) return {low};
  double step = std::pow(10.0, std::floor(std::log10((high - low) / most)));
  for (const double factor : {1.0, 2.0, 5.0, 10.0, 20.0, 50.0}) {
    const double first = std::ceil(low / (step * factor) - 1e-9), last = std::floor(high / (step * factor) + 1e-9);
    if (last - first + 1 > most) continue;
    step *= factor;
    for (double k = first; k <= last; ++k)
      ticks.push_back(k == 0.0 ? 0.0 : std::stod(fmt::format("{:.12g}", k * step)));
    break;
  }
  return ticks;
}

std::vector<double> log_axis_ticks(double low, double high, int most) {
  const double first = std::floor(std::log10(low)), last = std::ceil(std::log10(high));
  const auto ticks_of = [&](std::initializer_list<double> steps, double every) {
    std::vector<double> ticks;
    for (double decade = std::ceil(first / every) * every; decade <= last; decade += every)
      for (const double step : steps) {
        const double tick = step * std::pow(10.0, decade);
        if (tick >= low && tick <= high) ticks.push_back(tick);
      }
    return ticks;
  };
  std::vector<double> ticks = ticks_of({1, 2, 5}, 1);
  for (double every = 1; std::ssize(ticks) > most; ++every) ticks = ticks_of({1}, every);
  if (ticks.size() >= 2) return ticks;
  ticks = axis_ticks(low, high, most);
  std::erase_if(ticks, [](double tick) { return tick <= 0.0; });
  return ticks;
}

ThinnedLine thinned(const std::vector<ChartPoint>& points, int64_t parts) {
  Range x;
  for (const ChartPoint& p : points)
    if (std::isfinite(p.y) && std::isfinite(p.x)) x.add(p.x);
  ThinnedLine thin;
  struct Part {
    Range y;
    double x = 0.0, sum = 0.0;
    int64_t count = 0;
  };
  std::vector<Part> all(static_cast<size_t>(std::max<int64_t>(parts, 1)));
  const double width = x.empty() || x.high == x.low ? 1.0 : x.high - x.low;
  for (const ChartPoint& p : points) {
    if (!std::isfinite(p.y) || !std::isfinite(p.x)) continue;
    const double place = (p.x - x.low) / width * static_cast<double>(all.size());
    Part& part = all[std::min(static_cast<size_t>(place), all.size() - 1)];
    part.y.add(p.y);
    part.x += p.x;
    part.sum += p.y;
    ++part.count;
  }
  for (const Part& part : all) {
    if (part.count == 0) continue;
    const auto n = static_cast<double>(part.count);
    thin.low.push_back({part.x / n, part.y.low});
    thin.high.push_back({part.x / n, part.y.high});
    thin.mean.push_back({part.x / n, part.sum / n});
  }
  return thin;
}

std::string line_sample(int style) {
  return fmt::format(
      "<svg class=\"sample\" viewBox=\"0 0 34 12\" width=\"34\" height=\"12\" aria-hidden=\"true\"><path d=\"M1,6 "
      "33,6\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"{}/>{}</svg>",
      colour(style), dashes(style), mark_at(17, 6, style, 3.4));
}

std::string svg_of(const Chart& chart, int64_t parts) {
  Range x, y;
  for (const ChartLine& line : chart.lines)
    for (const ChartPoint& p : line.points)
      if (std::isfinite(p.x) && std::isfinite(p.y) && (!chart.log_y || p.y > 0.0)) {
        x.add(p.x);
        y.add(p.y);
      }
  if (x.empty()) return {};
  const Frame frame(chart, x, y);
  std::string text =
      fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">", kWidth, kHeight, escaped(chart.title));
  text += axes(chart, frame);
  for (const ChartFlag& f : chart.flags)
    if (f.x >= x.low && f.x <= x.high) text += flag(f, frame);
  for (const ChartLine& line : chart.lines) text += drawn(line, frame, parts);
  return text + "</svg>";
}

}  // namespace qn
