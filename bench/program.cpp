#include "bench/program.h"

#include <omp.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <fstream>
#include <iostream>

#include "comm/threads.h"
#include "core/error.h"
#include "core/log.h"

namespace qn::bench {
namespace {

/// A line "NAME:  123 kB" of /proc/self/status, in bytes; 0 when there is none.
int64_t status_bytes(const std::string& name) {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(name)) return std::stoll(line.substr(name.size() + 1)) * 1024;
  return 0;
}

void print_members(const Json& object, int indent) {
  for (const auto& [name, value] : object.items()) {
    std::cout << fmt::format("{:{}}{:<{}}", "", indent, name, 32 - indent);
    if (value.is_object()) {
      std::cout << '\n';
      print_members(value, indent + 2);
    } else if (value.is_number_float()) {
      std::cout << fmt::format("{:.5g}\n", value.get<double>());
    } else {
      std::cout << (value.is_string() ? value.get<std::string>() : value.dump()) << '\n';
    }
  }
}

}  // namespace

void CommonOptions::add_to(CLI::App& app) {
  app.add_option("--threads", threads, "Threads of each rank (0: OMP_NUM_THREADS, or all cores)")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--json", json, "Print one JSON object on one line");
}

int run_program(CLI::App& app, const CommonOptions& options, int argc, char** argv,
                const std::function<void(Communicator&)>& body) {
  std::unique_ptr<Communicator> comm;
  try {
    settle_threads(argv);
    comm = make_communicator();
    app.parse(argc, argv);
    if (options.threads > 0) omp_set_num_threads(options.threads);
    init_logging(comm->rank(), comm->size(), "warn");
    body(*comm);
    return 0;
  } catch (const CLI::ParseError& error) {
    return comm->is_root() ? app.exit(error) : error.get_exit_code();
  } catch (const std::exception& error) {
    spdlog::error("{}", error.what());
    if (comm != nullptr && comm->size() > 1) comm->abort(1);
    return 1;
  }
}

void reset_peak_memory() {
  std::ofstream out("/proc/self/clear_refs");
  out << "5" << std::flush;
}

int64_t peak_memory() { return status_bytes("VmHWM"); }
int64_t resident_memory() { return status_bytes("VmRSS"); }

double median(std::vector<double> values) {
  QN_ASSERT(!values.empty());
  std::ranges::sort(values);
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : 0.5 * (values[middle - 1] + values[middle]);
}

Json to_json(const Limits& limits) {
  Json json{{"simd", limits.simd}, {"matmul_gflops", limits.matmul_gflops}, {"fma_gflops", limits.fma_gflops}};
  if (!limits.copy.empty()) {
    Json& rates = json["copy_gbps"];
    for (const CopyRate& rate : limits.copy) rates[fmt::format("{} KiB", rate.bytes >> 10)] = rate.gbps;
  }
  if (limits.ranks > 1) json["allreduce_gbps"] = limits.allreduce_gbps;
  return json;
}

void print_report(const Json& report, bool json) {
  if (json)
    std::cout << report.dump() << std::endl;
  else
    print_members(report, 0);
}

}  // namespace qn::bench
