#include "core/profile_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "core/file_kind.h"
#include "core/text.h"

namespace qn {
namespace {

double ms(int64_t ns) { return static_cast<double>(ns) * 1e-6; }

double percent(int64_t part, int64_t whole) {
  return whole > 0 ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0.0;
}

int64_t age_of(const std::array<PhaseTotal, kPhases>& phases) {
  int64_t sum = 0;
  for (const PhaseTotal& phase : phases) sum += phase.ns;
  return sum;
}

/// Operations or bytes per nanosecond are 1e9 of them per second.
std::string rate_of(const OpTotal& total) {
  if (total.ns == 0) return "";
  const auto ns = static_cast<double>(total.ns);
  if (total.work.flops > 0.0) return fmt::format("{:.1f} GFLOP/s", total.work.flops / ns);
  return total.work.bytes > 0.0 ? fmt::format("{:.1f} GB/s", total.work.bytes / ns) : "";
}

struct OpRow {
  std::string name;
  OpTotal total;
};

/// An op that is used in both directions gets two rows.
std::vector<OpRow> op_rows(const Profiler& profiler) {
  std::vector<OpRow> rows;
  for (const OpTotals& op : profiler.ops()) {
    if (op.elsewhere.calls > 0) rows.push_back({op.name, op.elsewhere});
    if (op.backward.calls > 0) rows.push_back({op.elsewhere.calls > 0 ? op.name + ", backward" : op.name, op.backward});
  }
  std::stable_sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.total.ns > b.total.ns; });
  return rows;
}

void append_total(std::string& json, const OpTotal& total) {
  fmt::format_to(std::back_inserter(json), R"({{"calls":{},"ms":{:.6f},"flops":{:.0f},"bytes":{:.0f}}})", total.calls,
                 ms(total.ns), total.work.flops, total.work.bytes);
}

void append_totals(std::string& json, const Profiler& profiler) {
  const auto phases = profiler.phases();
  const auto out = std::back_inserter(json);
  fmt::format_to(out, R"("totals":{{"ms":{:.6f},"phases":{{)", ms(age_of(phases)));
  for (size_t i = 0; i < kPhases; ++i)
    fmt::format_to(out, R"({}"{}":{{"count":{},"ms":{:.6f},"ops_ms":{:.6f}}})", i > 0 ? "," : "",
                   name_of(static_cast<Phase>(i)), phases[i].count, ms(phases[i].ns), ms(phases[i].ops_ns));
  json += R"(},"ops":{)";
  for (size_t i = 0; i < profiler.ops().size(); ++i) {
    const OpTotals& op = profiler.ops()[i];
    fmt::format_to(out, R"({}"{}":{{"elsewhere":)", i > 0 ? "," : "", op.name);
    append_total(json, op.elsewhere);
    json += R"(,"backward":)";
    append_total(json, op.backward);
    json += '}';
  }
  json += "}}";
}

void append_event(std::string& json, const Profiler& profiler, const ProfileEvent& event, int rank) {
  const auto out = std::back_inserter(json);
  const bool is_op = event.op >= 0;
  const std::string_view name =
      is_op ? std::string_view(profiler.ops()[static_cast<size_t>(event.op)].name) : name_of(event.phase);
  fmt::format_to(out, R"({{"name":"{}","cat":"{}","ph":"X","pid":{},"tid":0,"ts":{:.3f},"dur":{:.3f})", name,
                 is_op ? "op" : "phase", rank, static_cast<double>(event.start_ns) * 1e-3,
                 static_cast<double>(event.duration_ns) * 1e-3);
  if (is_op && event.value > 0.0) {
    const OpTotals& op = profiler.ops()[static_cast<size_t>(event.op)];
    const bool flops = op.elsewhere.work.flops + op.backward.work.flops > 0.0;
    fmt::format_to(out, R"(,"args":{{"{}":{:.0f}}})", flops ? "flops" : "bytes", event.value);
  } else if (!is_op && event.value >= 0.0) {
    fmt::format_to(out, R"(,"args":{{"number":{:.0f}}})", event.value);
  }
  json += '}';
}

}  // namespace

std::filesystem::path profile_path(const std::filesystem::path& path, int rank, int ranks) {
  if (ranks == 1) return path;
  std::filesystem::path result = path;
  return result.replace_filename(fmt::format("{}.rank{}{}", path.stem().string(), rank, path.extension().string()));
}

std::string profile_table(const Profiler& profiler) {
  const auto phases = profiler.phases();
  const int64_t age = age_of(phases);
  std::array<size_t, kPhases> order;
  for (size_t i = 0; i < kPhases; ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return phases[a].ns > phases[b].ns; });
  std::string table = fmt::format("{:<28} {:>10} {:>14} {:>7} {:>9}\n", "phase", "times", "ms", "share", "in ops");
  const auto out = std::back_inserter(table);
  for (const size_t i : order) {
    if (phases[i].count == 0 && static_cast<Phase>(i) != Phase::other) continue;
    fmt::format_to(out, "{:<28} {:>10} {:>14.1f} {:>5.1f} % {:>7.1f} %\n", name_of(static_cast<Phase>(i)),
                   phases[i].count > 0 ? group_digits(phases[i].count) : "", ms(phases[i].ns),
                   percent(phases[i].ns, age), percent(phases[i].ops_ns, phases[i].ns));
  }
  fmt::format_to(out, "\n{:<28} {:>10} {:>14} {:>7} {:>16}\n", "op", "calls", "ms", "share", "rate");
  for (const OpRow& row : op_rows(profiler))
    fmt::format_to(out, "{:<28} {:>10} {:>14.1f} {:>5.1f} % {:>16}\n", row.name, group_digits(row.total.calls),
                   ms(row.total.ns), percent(row.total.ns, age), rate_of(row.total));
  return table;
}

std::string kept_events(const Profiler& profiler) {
  const std::vector<ProfileEvent> events = profiler.events();
  const auto kept = static_cast<int64_t>(events.size());
  if (kept == profiler.recorded_events()) return fmt::format("all {} events", group_digits(kept));
  const int64_t first_end = events.front().start_ns + events.front().duration_ns;
  return fmt::format("the newest {} of {} events, from the last {:.1f} s", group_digits(kept),
                     group_digits(profiler.recorded_events()), static_cast<double>(profiler.now() - first_end) * 1e-9);
}

std::string profile_trace(const Profiler& profiler, int rank) {
  std::string json = fmt::format(R"({}{{"rank":{},"kept":"{}"}},)", kProfileBeginning, rank, kept_events(profiler));
  json += '\n';
  append_totals(json, profiler);
  fmt::format_to(std::back_inserter(json),
                 ",\n"
                 R"("traceEvents":[{{"name":"process_name","ph":"M","pid":{0},"tid":0,"args":{{"name":"rank {0}"}}}})",
                 rank);
  for (const ProfileEvent& event : profiler.events()) {
    json += ",\n";
    append_event(json, profiler, event, rank);
  }
  json += "]}\n";
  return json;
}

}  // namespace qn
