#include "report/page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "core/text.h"
#include "report/chart.h"

namespace qn {
namespace {

constexpr const char* kStyle = R"(
:root{--ink:#1b1f24;--soft:#59636e;--page:#fff;--card:#f6f8fa;--line:#d1d9e0;--grid:#e3e7eb;
--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#b5538c;--c4:#a37500;--c5:#3a9bdc;--c6:#555}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9aa4ae;--page:#0d1117;--card:#161b22;--line:#30363d;
--grid:#252b33;--c0:#58a6e8;--c1:#ff8a4c;--c2:#2fc99a;--c3:#e59ac3;--c4:#e0b13c;--c5:#9fd4ff;--c6:#b4bcc4}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1320px;padding:16px;background:var(--page);color:var(--ink);
font:15px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
h1{font-size:1.5rem;margin:.2em 0}h2{font-size:1.2rem;margin:1.6em 0 .6em;border-bottom:1px solid var(--line)}
h3{font-size:.95rem;margin:0 0 .2em;font-weight:600}p{margin:.4em 0}.soft{color:var(--soft);font-size:.88rem}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;position:sticky;top:0;background:var(--page);padding:6px 0;z-index:1;
border-bottom:1px solid var(--line);font-size:.9rem}
.legend span{display:inline-flex;align-items:center;gap:6px;overflow-wrap:anywhere}.sample{flex:none}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,390px),1fr));gap:12px}
figure{margin:0;padding:10px;background:var(--card);border:1px solid var(--line);border-radius:6px;min-width:0}
figure svg{display:block;width:100%;height:auto}
svg text{font-size:12px;fill:var(--soft)}.grid{stroke:var(--grid);stroke-width:1}
.flag{stroke:var(--soft);stroke-width:1;stroke-dasharray:3 3}
.scroll{overflow-x:auto;margin-bottom:12px}table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}
th,td{padding:4px 10px;border-bottom:1px solid var(--line);text-align:right;vertical-align:top;white-space:nowrap}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:var(--page)}
td.wrap{white-space:normal;min-width:8rem}th{font-weight:600;color:var(--soft)}
td.text,th.text{text-align:left;white-space:normal;min-width:11rem;overflow-wrap:anywhere}
.bar{display:inline-block;height:.7em;border-radius:2px;min-width:1px}
.x{position:absolute;opacity:0}.x+label{display:inline-block;padding:3px 12px;border:1px solid var(--line);cursor:pointer;
font-size:.88rem}.x:checked+label{background:var(--ink);color:var(--page)}.x:focus-visible+label{outline:2px solid var(--c0)}
.by{margin:.2em 0 .8em}.time{display:none}.section:has(.bytime:checked) .time{display:grid}
.section:has(.bytime:checked) .updates{display:none}
details{margin:.6em 0}summary{cursor:pointer;font-size:.9rem}
@media(max-width:600px){body{padding:10px}th,td{padding:3px 7px}td:first-child{white-space:normal;min-width:6rem;
max-width:9rem}}
@media print{.legend{position:static}}
)";

/// Of the x axis: updates, or time of training in a unit that suits the longest run.
struct XAxis {
  bool time = false;
  double seconds = 1.0;
  std::string unit = "updates";
};

XAxis time_axis(const std::vector<const RunData*>& runs) {
  double longest = 0.0;
  for (const RunData* run : runs)
    if (!run->train_seconds.empty()) longest = std::max(longest, run->train_seconds.back());
  if (longest > 3 * 86400.0) return {true, 86400.0, "days of training"};
  if (longest > 3 * 3600.0) return {true, 3600.0, "hours of training"};
  if (longest > 180.0) return {true, 60.0, "minutes of training"};
  return {true, 1.0, "seconds of training"};
}

class Charts {
 public:
  Charts(std::vector<const RunData*> runs, const std::vector<RunData>& all) : runs_(std::move(runs)), all_(all) {
    parts_ = std::clamp<int64_t>(1400 / std::max<int64_t>(std::ssize(all), 1), 40, 200);
  }

  /// Every quantity that these runs have, over updates or over time.
  std::string grid(const XAxis& axis) const {
    std::string html;
    const std::string sample = sample_word();
    html += figure(axis, "Loss", "bits per " + sample, "loss", "loss", {});
    std::set<std::string> done{"loss"};
    for (const RunData* run : runs_)
      for (const std::string& metric : run->metrics())
        if (done.insert(metric).second) {
          const bool perplexity = metric == "ppl";
          html += figure(axis, perplexity ? "Perplexity" : metric, perplexity ? "perplexity" : metric, metric, metric,
                         {.log_y = perplexity});
        }
    html += figure(axis, "Learning rate", "rate", "lr", "", {.zero = true});
    html += figure(axis, "Norm of the gradient", "norm before clipping", "grad_norm", "", {.log_y = true});
    html += figure(axis, "Throughput", run_samples() + " per second", "", "", {.zero = true}, [](const RunData& run) {
      std::vector<double> speed = run.train.column(run.samples);
      const std::vector<double>& seconds = run.train.column("seconds");
      for (size_t i = 0; i < speed.size() && i < seconds.size(); ++i) speed[i] /= seconds[i];
      return speed;
    });
    html +=
        figure(axis, "Memory of the first rank", "MiB, peak so far", "", "", {.zero = true}, [](const RunData& run) {
          std::vector<double> memory = run.train.column("memory");
          for (double& bytes : memory) bytes /= 1024.0 * 1024.0;
          return memory;
        });
    html += figure(axis, "Loss scale (fp16)", "factor", "loss_scale", "", {.log_y = true});
    return html;
  }

  /// One chart per stage: every weight's objective relative to that after the first iteration.
  std::string kmeans() const {
    std::set<int64_t> stages;
    for (const RunData* run : runs_)
      for (const KMeansRecord& record : run->kmeans) stages.insert(record.stage);
    std::string html;
    for (const int64_t stage : stages) {
      Chart chart{.title = fmt::format("k-means of stage {}", stage),
                  .x_unit = "iterations",
                  .y_unit = "objective of each weight, % of its first",
                  .whole_x = true,
                  .lines = {},
                  .flags = {}};
      for (const RunData* run : runs_) add_objectives(*run, stage, chart);
      html += wrapped(chart);
    }
    return html;
  }

  /// What validation gave from stage to stage.
  std::string stages() const {
    std::string html;
    std::set<std::string> done;
    for (const RunData* run : runs_)
      for (const std::string& metric : run->metrics()) {
        if (metric == "loss" || !done.insert(metric).second) continue;
        Chart chart{.title = fmt::format("{} after the k-means of each stage", metric == "ppl" ? "Perplexity" : metric),
                    .x_unit = "stage",
                    .y_unit = metric == "ppl" ? "perplexity" : metric,
                    .log_y = metric == "ppl",
                    .whole_x = true,
                    .lines = {},
                    .flags = {}};
        for (const RunData* of : runs_) {
          ChartLine line{.label = of->name, .style = style_of(*of), .points = {}, .marks = true};
          const std::vector<double>&x = of->stage.column("stage"), &y = of->stage.column("valid_" + metric);
          for (size_t i = 0; i < x.size() && i < y.size(); ++i) line.points.push_back({x[i], y[i]});
          chart.lines.push_back(std::move(line));
        }
        html += wrapped(chart);
      }
    return html;
  }

 private:
  struct Look {
    bool log_y = false, zero = false;
  };

  int style_of(const RunData& run) const { return static_cast<int>(&run - all_.data()); }
  std::string run_samples() const { return runs_.front()->samples; }
  std::string sample_word() const {
    std::string word = run_samples();
    if (word.ends_with("s")) word.pop_back();
    return word;
  }

  double x_of(const XAxis& axis, const RunData& run, size_t row) const {
    return axis.time ? run.train_seconds[row] / axis.seconds : run.train.column("update")[row];
  }

  std::string figure(const XAxis& axis, const std::string& title, const std::string& unit, const std::string& trained,
                     const std::string& validated, Look look,
                     const std::function<std::vector<double>(const RunData&)>& derived = {}) const {
    Chart chart{.title = title,
                .x_unit = axis.unit,
                .y_unit = unit,
                .log_y = look.log_y,
                .zero = look.zero,
                .lines = {},
                .flags = {}};
    bool both[2] = {false, false};
    for (const RunData* run : runs_) {
      const std::vector<double> values = derived ? derived(*run) : run->train.column(trained);
      ChartLine line{.label = run->name + ", training", .style = style_of(*run), .points = {}};
      for (size_t i = 0; i < values.size(); ++i) line.points.push_back({x_of(axis, *run, i), values[i]});
      ChartLine valid{.label = run->name + ", validation", .style = style_of(*run), .points = {}, .marks = true};
      if (!validated.empty()) {
        const std::vector<double>&at = run->valid.column("update"), &found = run->valid.column(validated);
        for (size_t i = 0; i < found.size(); ++i)
          valid.points.push_back({axis.time ? run->seconds_at(at[i]) / axis.seconds : at[i], found[i]});
      }
      both[0] |= !line.points.empty();
      both[1] |= !valid.points.empty();
      line.faint = !valid.points.empty();
      valid.thick = true;
      if (!line.points.empty()) chart.lines.push_back(std::move(line));
      if (!valid.points.empty()) chart.lines.push_back(std::move(valid));
      add_flags(axis, *run, chart);
    }
    const char* note = both[0] && both[1] ? "thin: training; with marks: validation" : both[1] ? "validation" : "";
    return wrapped(chart, note);
  }

  void add_flags(const XAxis& axis, const RunData& run, Chart& chart) const {
    const auto at = [&](double update) { return axis.time ? run.seconds_at(update) / axis.seconds : update; };
    const std::vector<double>&updates = run.stage.column("update"), &stages = run.stage.column("stage");
    for (size_t i = 0; i < updates.size() && i < stages.size(); ++i)
      chart.flags.push_back({at(updates[i]), fmt::format("{}: k-means of stage {}", run.name, stages[i])});
    for (const RunEvent& event : run.events)
      if (event.kind == "spike" || event.kind == "rollback")
        chart.flags.push_back({at(event.update), fmt::format("{}: {}", run.name, event.text), style_of(run)});
  }

  void add_objectives(const RunData& run, int64_t stage, Chart& chart) const {
    std::map<std::string, ChartLine> lines;
    std::map<std::string, double> first;
    for (const KMeansRecord& record : run.kmeans) {
      if (record.stage != stage) continue;
      for (const auto& [weight, value] : record.objective) {
        const double start = first.try_emplace(weight, value).first->second;
        ChartLine& line = lines[weight];
        line.points.push_back({static_cast<double>(record.iteration), start > 0.0 ? 100.0 * value / start : 100.0});
      }
    }
    for (auto& [weight, line] : lines) {
      line.label = run.name + ": " + weight;
      line.style = style_of(run);
      chart.lines.push_back(std::move(line));
    }
  }

  std::string wrapped(const Chart& chart, const std::string& note = "") const {
    const std::string svg = svg_of(chart, parts_);
    if (svg.empty()) return {};
    return fmt::format("<figure><h3>{}</h3>{}{}</figure>\n", escaped(chart.title), svg,
                       note.empty() ? "" : fmt::format("<div class=\"soft\">{}</div>", note));
  }

  std::vector<const RunData*> runs_;
  const std::vector<RunData>& all_;
  int64_t parts_ = 200;
};

std::string legend(const std::vector<RunData>& runs) {
  std::string html = "<div class=\"legend\">";
  for (size_t i = 0; i < runs.size(); ++i)
    html += fmt::format("<span>{}{}</span>", line_sample(static_cast<int>(i)), escaped(runs[i].name));
  return html + "</div>\n";
}

std::string section(const std::string& title, const std::string& id, const Charts& charts,
                    const std::vector<const RunData*>& runs) {
  return fmt::format(
             "<section class=\"section\"><h2>{0}</h2><div class=\"by\">"
             "<input class=\"x\" type=\"radio\" name=\"{1}\" id=\"{1}u\" checked><label for=\"{1}u\">by updates</label>"
             "<input class=\"x bytime\" type=\"radio\" name=\"{1}\" id=\"{1}t\"><label for=\"{1}t\">by "
             "time</label></div>",
             title, id) +
         "<div class=\"charts updates\">" + charts.grid({}) + "</div><div class=\"charts time\">" +
         charts.grid(time_axis(runs)) + "</div></section>\n";
}

std::string titled(const std::string& title, const std::string& content) {
  return content.empty() ? "" : fmt::format("<section><h2>{}</h2>{}</section>\n", title, content);
}

std::string in_grid(const std::string& figures) {
  return figures.empty() ? "" : "<div class=\"charts\">" + figures + "</div>";
}

}  // namespace

std::string report_page(const std::vector<RunData>& runs, const std::string& made) {
  std::vector<const RunData*> trained, quantized;
  for (const RunData& run : runs) (run.command == "quantize" ? quantized : trained).push_back(&run);
  std::string html = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width,initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\">"
      "<title>{0}</title><style>{1}</style></head>\n<body>\n<h1>{0}</h1><p class=\"soft\">made {2} by quantnoise {3}; "
      "losses are in bits; point at a line to see whose it is</p>\n",
      escaped(runs.size() == 1 ? "Run " + runs.front().name : fmt::format("{} runs", runs.size())), kStyle, made,
      QN_VERSION);
  html += legend(runs);
  html += titled("Figures", figures_table(runs));
  if (!trained.empty()) html += section("Training", "t", Charts(trained, runs), trained);
  if (!quantized.empty()) {
    const Charts charts(quantized, runs);
    html += section("Quantization and finetuning", "q", charts, quantized);
    html += titled("Stages", stages_table(runs) + in_grid(charts.stages()));
    html += titled("k-means", in_grid(charts.kmeans()) + kmeans_tables(runs));
  }
  html += titled("Bytes by group of weights", bytes_table(runs));
  html += titled("What happened", events_table(runs));
  html += titled("Differences of configurations", differences_table(runs));
  return html + "</body></html>\n";
}

}  // namespace qn
