#include <fmt/chrono.h>
#include <spdlog/spdlog.h>

#include <ctime>

#include "cli/commands.h"
#include "core/file_io.h"
#include "core/text.h"
#include "report/page.h"
#include "train/start_checks.h"

namespace qn::cli {

namespace {

constexpr std::string_view kBeginning = "<!DOCTYPE html>";

/// An older page may be overwritten, other texts not.
void check_page(const std::filesystem::path& out) {
  check_output_file(out, "--out", FileKind::text, {});
  std::error_code error;
  if (!std::filesystem::exists(out, error)) return;
  const std::vector<std::byte> head = read_file_head(out, kBeginning.size());
  const std::string_view text(reinterpret_cast<const char*>(head.data()), head.size());
  QN_CHECK_USAGE(text.empty() || text == kBeginning,
                 "--out {}: this is a text, but no HTML page, which would be overwritten; name another file",
                 out.string());
}

}  // namespace

Command add_report(CLI::App& app) {
  auto folders = std::make_shared<std::vector<std::string>>();
  auto out = std::make_shared<std::string>();
  app.add_option("runs", *folders, "Folders of runs (checkpoint.dir), laid over each other")->required();
  app.add_option("-o,--out", *out, "HTML file to write")->required();
  app.footer(
      "One page that needs nothing else, no network either: curves over updates and time, stages, k-means, bytes by\n"
      "group of weights, what happened, and how the configurations differ. Reads what runs write while they go on.\n"
      "Example: quantnoise report runs/plain runs/noise runs/plain_ipq runs/noise_ipq --out report.html");
  return [folders, out](Communicator& comm) {
    if (!comm.is_root()) return kSuccess;
    check_page(*out);
    const std::vector<RunData> runs = read_runs({folders->begin(), folders->end()});
    const std::string page = report_page(runs, fmt::format("{:%Y-%m-%d %H:%M}", fmt::localtime(std::time(nullptr))));
    atomic_write_text(*out, page);
    spdlog::info("{}: {} run{}, {}", *out, runs.size(), runs.size() == 1 ? "" : "s", format_bytes(page.size()));
    return kSuccess;
  };
}

}  // namespace qn::cli
