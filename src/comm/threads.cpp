#include "comm/threads.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "comm/mpi_communicator.h"

namespace qn {
namespace {

constexpr const char* kThreads = "OMP_NUM_THREADS";
constexpr const char* kWaitPolicy = "OMP_WAIT_POLICY";

/// Cores this process may run on (mpirun binds small numbers of ranks to one core each).
int allowed_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
}

int ranks_on_this_machine() {
  for (const char* name : {"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_NTASKS_PER_NODE"})
    if (const char* text = std::getenv(name)) return std::max(1, std::atoi(text));
  return 1;
}

}  // namespace

void settle_threads(char** argv) {
  const bool threads_set = std::getenv(kThreads) != nullptr, policy_set = std::getenv(kWaitPolicy) != nullptr;
  if (!started_by_mpi_launcher() || (threads_set && policy_set)) return;
  const long machine = sysconf(_SC_NPROCESSORS_ONLN);
  const int cores = allowed_cores();
  // Bound ranks have their cores to themselves; unbound ones see the whole machine.
  const int threads = cores < machine ? cores : std::max(1, cores / ranks_on_this_machine());
  setenv(kThreads, std::to_string(threads).c_str(), 0);
  setenv(kWaitPolicy, "passive", 0);
  execv("/proc/self/exe", argv);
  // Without /proc the program goes on as it was started: slower, not wrong.
}

}  // namespace qn
