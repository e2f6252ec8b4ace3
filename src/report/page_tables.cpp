// The tables of the page of `report`.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <set>

#include "core/text.h"
#include "report/chart.h"
#include "report/page.h"
#include "train/progress.h"

namespace qn {
namespace {

constexpr const char* kNone = "–";

std::string scrolled(const std::string& table) { return "<div class=\"scroll\"><table>" + table + "</table></div>"; }

std::string cell(const std::string& content, const char* kind = "") {
  return *kind == '\0' ? "<td>" + content + "</td>" : fmt::format("<td class=\"{}\">{}</td>", kind, content);
}

std::string head(const std::vector<std::string>& names, bool text = false) {
  std::string html = "<tr>";
  for (size_t i = 0; i < names.size(); ++i)
    html += fmt::format("<th{}>{}</th>", text && i > 0 ? " class=\"text\"" : "", escaped(names[i]));
  return html + "</tr>";
}

std::vector<std::string> names_of_runs(const std::string& first, const std::vector<RunData>& runs) {
  std::vector<std::string> names{first};
  for (const RunData& run : runs) names.push_back(run.name);
  return names;
}

std::string number(double value, int digits = 4) { return std::isfinite(value) ? number_text(value, digits) : kNone; }

std::string bytes_text(double bytes) {
  return std::isfinite(bytes) && bytes >= 0.0 ? format_bytes(static_cast<uint64_t>(bytes)) : kNone;
}

double sum(const std::vector<double>& values) {
  double total = 0.0;
  for (const double value : values) total += std::isfinite(value) ? value : 0.0;
  return total;
}

double total(const NamedNumbers& numbers) {
  double all = 0.0;
  for (const auto& [name, value] : numbers) all += value;
  return all;
}

/// Of the newest updates, whose single losses differ by what is in them.
double recent_mean(const std::vector<double>& values) {
  constexpr size_t kRecent = 50;
  double all = 0.0, count = 0.0;
  for (size_t i = values.size() - std::min(values.size(), kRecent); i < values.size(); ++i)
    if (std::isfinite(values[i])) {
      all += values[i];
      count += 1.0;
    }
  return count > 0.0 ? all / count : std::numeric_limits<double>::quiet_NaN();
}

std::string updates_text(const RunData& run) {
  const double done = run.train.last("update");
  if (!std::isfinite(done)) return run.train.rows() == 0 ? "0" : kNone;
  return number(done) + (run.max_updates > 0.0 ? " of " + number(run.max_updates) : "");
}

std::string throughput_text(const RunData& run) {
  const double seconds = sum(run.train.column("seconds"));
  return seconds > 0.0 ? number(std::round(sum(run.train.column(run.samples)) / seconds)) : kNone;
}

/// "51.34 at update 1,500"
std::string best_text(const RunData& run, const std::string& metric) {
  const std::vector<double>&found = run.valid.column(metric), &updates = run.valid.column("update");
  const double best = run.valid.last("best_" + metric);
  const auto place = std::find(found.begin(), found.end(), best);
  if (!std::isfinite(best) || place == found.end()) return number(best, 5);
  return fmt::format("{} <span class=\"soft\">at update {}</span>", number(best, 5),
                     number(updates[static_cast<size_t>(place - found.begin())]));
}

int64_t count_of(const RunData& run, const char* kind) {
  return std::count_if(run.events.begin(), run.events.end(), [&](const RunEvent& e) { return e.kind == kind; });
}

/// Metrics of any run, in the order in which they come, without repetition.
std::vector<std::string> all_metrics(const std::vector<RunData>& runs) {
  std::vector<std::string> names;
  for (const RunData& run : runs)
    for (const std::string& metric : run.metrics())
      if (std::find(names.begin(), names.end(), metric) == names.end()) names.push_back(metric);
  return names;
}

std::string bar(double share, int style) {
  return fmt::format("<span class=\"bar\" style=\"width:{:.1f}em;background:var(--c{})\"></span>", 8.0 * share,
                     style % 7);
}

std::string when(double time) { return time > 0.0 ? format_clock(time) : kNone; }

}  // namespace

std::string figures_table(const std::vector<RunData>& runs) {
  std::string html = head(names_of_runs("", runs));
  const auto row = [&](const std::string& title, const std::function<std::string(const RunData&)>& value,
                       const char* kind = "") {
    std::string line = "<tr>" + cell(escaped(title));
    bool any = false;
    for (const RunData& run : runs) {
      const std::string found = value(run);
      any = any || (!found.empty() && found != kNone);
      line += cell(found.empty() ? kNone : found, kind);
    }
    if (any) html += line + "</tr>";
  };
  row("command", [](const RunData& run) { return escaped(run.command); });
  row(
      "state", [](const RunData& run) { return escaped(run.health.text); }, "wrap");
  row("updates", updates_text);
  row("epochs begun", [](const RunData& run) { return number(run.train.last("epoch")); });
  row("time in updates", [](const RunData& run) { return format_duration(sum(run.train.column("seconds"))); });
  row("starts and resumptions", [](const RunData& run) {
    const int64_t starts = count_of(run, "start");
    return starts > 0 ? number(static_cast<double>(starts)) : "";
  });
  row(runs.front().samples + " per second", throughput_text);
  row("training loss, mean of the last 50",
      [](const RunData& run) { return number(recent_mean(run.train.column("loss"))); });
  for (const std::string& metric : all_metrics(runs)) {
    row("best validation " + metric, [&](const RunData& run) { return best_text(run, metric); });
    row("last validation " + metric, [&](const RunData& run) { return number(run.valid.last(metric), 5); });
  }
  row("parameters", [](const RunData& run) { return run.parameters.empty() ? "" : number(total(run.parameters)); });
  row("packed file, bytes", [](const RunData& run) { return number(run.packed.last("bytes")); });
  row("times smaller than fp32",
      [](const RunData& run) { return number(run.packed.last("original_bytes") / run.packed.last("bytes")); });
  for (const std::string& metric : all_metrics(runs))
    row("packed file, validation " + metric,
        [&](const RunData& run) { return number(run.packed.last("packed_" + metric), 5); });
  row("peak memory of the first rank", [](const RunData& run) { return bytes_text(run.train.last("memory")); });
  row("spikes", [](const RunData& run) {
    const int64_t spikes = count_of(run, "spike");
    return spikes > 0 ? number(static_cast<double>(spikes)) : "";
  });
  row("updates skipped", [](const RunData& run) { return number(run.train.last("skipped_updates")); });
  row("lines of metrics.jsonl that are no records",
      [](const RunData& run) { return run.unreadable > 0 ? number(static_cast<double>(run.unreadable)) : ""; });
  return scrolled(html);
}

std::string stages_table(const std::vector<RunData>& runs) {
  const std::vector<std::string> metrics = all_metrics(runs);
  std::vector<std::string> columns{"run", "stage", "weights", "relative error", "k-means, s"};
  for (const std::string& metric : metrics) columns.push_back(metric + " after k-means");
  for (const std::string& metric : metrics) columns.push_back(metric + " after finetuning");
  std::string html;
  for (const RunData& run : runs) {
    const std::vector<double>& updates = run.stage.column("update");
    const std::vector<double>& validated = run.valid.column("update");
    for (size_t i = 0; i < run.stage.rows(); ++i) {
      const auto at = [&](const std::string& name) {
        const std::vector<double>& values = run.stage.column(name);
        return values.empty() ? std::numeric_limits<double>::quiet_NaN() : values[i];
      };
      html += "<tr>" + cell(escaped(run.name)) + cell(number(at("stage"))) + cell(number(at("weights"))) +
              cell(number(at("relative_error"))) + cell(number(at("seconds"), 3));
      for (const std::string& metric : metrics) html += cell(number(at("valid_" + metric), 5));
      // The last validation before the next stage begins.
      const double begin = updates[i],
                   end = i + 1 < updates.size() ? updates[i + 1] : std::numeric_limits<double>::infinity();
      size_t row = validated.size();
      for (size_t v = 0; v < validated.size(); ++v)
        if (validated[v] > begin && validated[v] <= end) row = v;
      for (const std::string& metric : metrics) {
        const std::vector<double>& values = run.valid.column(metric);
        html += cell(row < values.size() ? number(values[row], 5) : kNone);
      }
      html += "</tr>";
    }
  }
  return html.empty() ? "" : scrolled(head(columns) + html);
}

std::string bytes_table(const std::vector<RunData>& runs) {
  std::string html;
  for (size_t r = 0; r < runs.size(); ++r) {
    const RunData& run = runs[r];
    if (run.packed_bytes.empty()) continue;
    std::set<std::string> groups;
    double largest = 1.0;
    for (const auto& [group, bytes] : run.packed_bytes) {
      groups.insert(group);
      largest = std::max(largest, bytes);
    }
    const double all = total(run.packed_bytes), dense = 4.0 * total(run.parameters);
    std::string rows =
        head({"group", "parameters", "fp32, bytes", "packed, bytes", "share of the file", "", "bits per parameter"});
    const auto line = [&](const std::string& group, double parameters, double bytes) {
      rows +=
          "<tr>" + cell(escaped(group)) + cell(parameters > 0.0 ? number(parameters) : kNone) +
          cell(parameters > 0.0 ? number(4.0 * parameters) : kNone) + cell(number(bytes)) +
          cell(fmt::format("{:.1f} %", 100.0 * bytes / all)) +
          fmt::format("<td class=\"text\">{}</td>", group == "all" ? "" : bar(bytes / largest, static_cast<int>(r))) +
          cell(parameters > 0.0 ? fmt::format("{:.2f}", 8.0 * bytes / parameters) : kNone) + "</tr>";
    };
    for (const std::string& group : groups) {
      const auto found = run.parameters.find(group);
      line(group, found == run.parameters.end() ? 0.0 : found->second, run.packed_bytes.at(group));
    }
    line("all", dense / 4.0, all);
    html += fmt::format("<h3>{} {}</h3><p class=\"soft\">{}</p>", line_sample(static_cast<int>(r)), escaped(run.name),
                        escaped(run.packed_file)) +
            scrolled(rows);
  }
  return html;
}

std::string kmeans_tables(const std::vector<RunData>& runs) {
  std::string html;
  for (const RunData& run : runs) {
    struct Fit {
      double first = 0.0, last = 0.0;
      int64_t iterations = 0;
    };
    std::map<std::pair<int64_t, std::string>, Fit> fits;
    for (const KMeansRecord& record : run.kmeans)
      for (const auto& [weight, objective] : record.objective) {
        const auto [fit, is_new] = fits.try_emplace({record.stage, weight});
        if (is_new) fit->second.first = objective;
        fit->second.last = objective;
        fit->second.iterations = record.iteration;
      }
    if (fits.empty()) continue;
    std::string rows =
        head({"weight", "stage", "iterations", "objective after the first", "after the last", "less by"});
    for (const auto& [key, fit] : fits)
      rows += "<tr>" + cell(escaped(key.second)) + cell(number(static_cast<double>(key.first))) +
              cell(number(static_cast<double>(fit.iterations))) + cell(number(fit.first, 5)) +
              cell(number(fit.last, 5)) +
              cell(fit.first > 0.0 ? fmt::format("{:.1f} %", 100.0 * (1.0 - fit.last / fit.first)) : kNone) + "</tr>";
    html += fmt::format("<details><summary>Objectives of {}: {} weights (norm of decoded - original)</summary>",
                        escaped(run.name), fits.size()) +
            scrolled(rows) + "</details>";
  }
  return html;
}

std::string events_table(const std::vector<RunData>& runs) {
  constexpr size_t kMost = 200;
  std::string rows;
  for (const RunData& run : runs) {
    const size_t skipped = run.events.size() > kMost ? run.events.size() - kMost : 0;
    if (skipped > 0)
      rows += "<tr>" + cell(escaped(run.name)) + cell("") + cell("") + cell("") +
              cell(fmt::format("{} earlier ones are left out", skipped), "text") + "</tr>";
    for (size_t i = skipped; i < run.events.size(); ++i) {
      const RunEvent& event = run.events[i];
      rows += "<tr>" + cell(escaped(run.name)) + cell(when(event.time)) + cell(number(event.update)) +
              cell(escaped(event.kind)) + cell(escaped(event.text), "text") + "</tr>";
    }
  }
  return rows.empty()
             ? ""
             : scrolled("<tr><th>run</th><th>when</th><th>update</th><th>what</th><th class=\"text\"></th></tr>" +
                        rows);
}

std::string differences_table(const std::vector<RunData>& runs) {
  if (runs.size() < 2) return {};
  std::string rows;
  for (const ConfigDifference& difference : config_differences(runs)) {
    rows += "<tr>" + cell(escaped(difference.key));
    for (const std::string& value : difference.values) rows += cell(value.empty() ? kNone : escaped(value), "text");
    rows += "</tr>";
  }
  return rows.empty() ? "<p>none</p>" : scrolled(head(names_of_runs("key", runs), true) + rows);
}

}  // namespace qn
