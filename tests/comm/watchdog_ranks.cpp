// A job for watchdog_test to watch: some collectives, then one rank misbehaves.
//   watchdog_ranks CASE CULPRIT SECONDS
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "comm/communicator.h"
#include "comm/transport_guard.h"
#include "comm/watchdog.h"
#include "core/activity.h"
#include "core/error.h"
#include "core/log.h"
#include "core/profiler.h"

namespace qn {
namespace {

void collectives(Communicator& comm) {
  for (int i = 0; i < 5; ++i) comm.all_reduce_sum_value(1.0);
  comm.barrier();
}

[[noreturn]] void for_ever() {
  for (;;) std::this_thread::sleep_for(std::chrono::milliseconds(10));
}

void work_as_long_as_allowed(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(0.5 * seconds));
}

/// What the culprit does before the collective in which the others wait for it.
void misbehave(const std::string& what, double seconds) {
  if (what == "killed") raise(SIGKILL);
  if (what == "stopped") raise(SIGSTOP);
  if (what == "endless") {
    const ProfileScope phase(Phase::validation);
    for_ever();
  }
  if (what == "throws") fail("there is no such file");
  if (what == "slow") work_as_long_as_allowed(seconds);
}

/// Lets this process open no files and sockets as long as it lives.
class NoDescriptors {
 public:
  NoDescriptors() {
    getrlimit(RLIMIT_NOFILE, &before_);
    const rlimit none{3, before_.rlim_max};
    setrlimit(RLIMIT_NOFILE, &none);
  }
  ~NoDescriptors() { setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
};

std::unique_ptr<Watchdog> start(Communicator& comm, const std::string& what, int culprit, double seconds) {
  std::optional<NoDescriptors> limit;
  if (what == "unreachable" && comm.rank() == culprit) limit.emplace();
  return start_watchdog(comm, seconds);
}

void run(Communicator& comm, const std::string& what, int culprit, double seconds) {
  const auto watchdog = start(comm, what, culprit, seconds);
  const TransportGuard guard(
      [&] { return what == "transport" && comm.rank() == culprit ? "has lost its network" : ""; },
      [] { std::fprintf(stderr, "transport aborted\n"); });
  collectives(comm);
  if (what == "leaves" && comm.rank() == culprit) return;
  if (what == "hang" || what == "transport") {
    const CollectiveScope collective("all-reduce");
    for_ever();
  }
  if (comm.rank() == culprit) misbehave(what, seconds);
  collectives(comm);
  std::fprintf(stderr, "rank %d finished\n", comm.rank());
}

}  // namespace
}  // namespace qn

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  // The launcher asks the others to end as soon as one has; the program itself only takes a note of it, too.
  if (std::string(argv[1]) != "leaves") signal(SIGTERM, SIG_IGN);
  const auto comm = qn::make_communicator();
  qn::init_logging(comm->rank(), comm->size(), "info");
  try {
    qn::run(*comm, argv[1], std::atoi(argv[2]), std::atof(argv[3]));
  } catch (const std::exception& error) {
    spdlog::error("{}", error.what());
    comm->abort(1);
  }
  // The rank that left early must not wait for the others in MPI_Finalize.
  if (std::string(argv[1]) == "leaves") qn::for_ever();
}
