// What a profiler found, for people (a table) and for Perfetto (a Chrome trace).
#pragma once

#include <filesystem>
#include <string>

#include "core/profiler.h"

namespace qn {

/// The file of one rank: `path` itself when it is alone, else profile.rank2.json for profile.json.
std::filesystem::path profile_path(const std::filesystem::path& path, int rank, int ranks);

/// Phases and ops with their times, shares and rates, longest first. Ends with a newline.
std::string profile_table(const Profiler& profiler);

/// "the newest 65,536 of 123,456 events, from the last 12.3 s": what of the run is in the trace.
std::string kept_events(const Profiler& profiler);

/// A JSON object for ui.perfetto.dev or chrome://tracing: "traceEvents" with the events kept (process = rank), and
/// "totals" of the whole run.
std::string profile_trace(const Profiler& profiler, int rank);

}  // namespace qn
