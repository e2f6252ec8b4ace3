#include "comm/threads.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <regex>
#include <string>

#include "comm/mpi_communicator.h"
#include "core/error.h"

namespace qn {
namespace {

constexpr const char* kThreads = "OMP_NUM_THREADS";
constexpr const char* kWaitPolicy = "OMP_WAIT_POLICY";
constexpr const char* kSpinCount = "GOMP_SPINCOUNT";
// Some 100 microseconds on processors whose pause takes 140 cycles: longer than threads of one kernel usually wait for
// each other, because waking one may cost more than that, and short enough not to keep much from others. On two cores
// of a virtual machine (Xeon, AVX-512) updates of wikitext2_small take 0.73, 0.90, 1.05 s in three rounds, with a
// fourth of it 0.92, 1.00, 1.04 s, with 2.5 times as much 0.77, 0.83, 1.30 s. Beside two busy processes small runs take
// as long as with sleeping threads; the longer threads spin, the fewer other processes it takes to slow them down many
// times over.
constexpr const char* kShortSpin = "2000";

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

/// The runtime goes on with all cores where it does not understand the setting.
void check_thread_count() {
  const char* text = std::getenv(kThreads);
  if (text == nullptr || *text == '\0') return;
  static const std::regex levels(R"(\s*[1-9][0-9]*\s*(,\s*[1-9][0-9]*\s*)*)");
  QN_CHECK_USAGE(std::regex_match(text, levels),
                 "OMP_NUM_THREADS is '{}': set it to a positive whole number, or unset it", text);
}

void start_anew(char** argv) {
  execv("/proc/self/exe", argv);
  // Without /proc the program goes on as it was started: slower, not wrong.
}

/// Of one process.
void settle_waiting(char** argv) {
  if (std::getenv(kWaitPolicy) != nullptr || std::getenv(kSpinCount) != nullptr) return;
  setenv(kSpinCount, kShortSpin, 0);
  start_anew(argv);
}

}  // namespace

void settle_threads(char** argv) {
  check_thread_count();
  if (!started_by_mpi_launcher()) return settle_waiting(argv);
  const bool threads_set = std::getenv(kThreads) != nullptr, policy_set = std::getenv(kWaitPolicy) != nullptr;
  if (threads_set && policy_set) return;
  const long machine = sysconf(_SC_NPROCESSORS_ONLN);
  const int cores = allowed_cores();
  // Bound ranks have their cores to themselves; unbound ones see the whole machine.
  const int threads = cores < machine ? cores : std::max(1, cores / ranks_on_this_machine());
  setenv(kThreads, std::to_string(threads).c_str(), 0);
  setenv(kWaitPolicy, "passive", 0);
  start_anew(argv);
}

}  // namespace qn
