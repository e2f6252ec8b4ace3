// What the programs of this folder have in common: start, options, memory, the report.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/limits.h"
#include "comm/communicator.h"

namespace qn::bench {

/// Options of every program.
struct CommonOptions {
  int threads = 0;  ///< of each rank; 0: what OpenMP would take
  bool json = false;

  void add_to(CLI::App& app);
};

/// Parses, sets threads and logging up, runs `body` and turns errors into a message and a status. `body` is called with
/// the communicator after parsing.
int run_program(CLI::App& app, const CommonOptions& options, int argc, char** argv,
                const std::function<void(Communicator&)>& body);

/// Forgets the peak resident memory so far. Where the system does not allow that, the peak is that of the process.
void reset_peak_memory();
/// Peak resident memory since then, in bytes.
int64_t peak_memory();
/// Resident memory now, in bytes.
int64_t resident_memory();

double median(std::vector<double> values);

using Json = nlohmann::ordered_json;

/// The limits under their names, for the report.
Json to_json(const Limits& limits);

/// One object on one line with --json, else one "name  value" line per member (members of objects indented).
void print_report(const Json& report, bool json);

}  // namespace qn::bench
