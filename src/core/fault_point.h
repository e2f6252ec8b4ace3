// Named moments at which drills disturb the program: kill it, stop it, let a step on a file fail. Only programs that
// are built with QN_FAULT_POINTS (where the tests are built) look at QN_FAULTS; elsewhere the calls do nothing.
//
//   QN_FAULTS=POINT[@RANK][:VISIT]=ACTION[,...]
//
// POINT   a name given to fault_point(), or a step on a file: file.open, file.create, file.read, file.write, file.sync,
//         file.rename, file.remove, of any file or, as in file.write/run.json, of those of one name
// RANK    the rank that it concerns; default: every one, each counting its own visits
// VISIT   3: the third visit (default: the first), 3+: the third and all later ones
// ACTION  kill    SIGKILL to the own process
//         stop    SIGSTOP to the own process
//         waitMS  a pause of so many milliseconds
//         EIO     this step on a file fails (also ENOSPC, EDQUOT, EACCES, EROFS, EMFILE)
//         short   a read or write transfers half of the bytes at first, as the system may at any time
//         end     a read finds the end of the file halfway, as if it was truncated meanwhile
//
// QN_FAULT_TRACE=FILE appends every visit to FILE.RANK, from which drills learn which points there are.
#pragma once

#include <filesystem>
#include <string>

namespace qn {

/// Something may happen here, and the run has to survive it.
void fault_point(const char* name);

/// What is to become of a step on a file.
struct FaultedStep {
  int error = 0;  ///< an errno: the step fails
  bool half = false, ends = false;
};
FaultedStep faulted_step(const char* step, const std::filesystem::path& path);

/// In place of QN_FAULTS from now on; visits are counted anew. Throws qn::UsageError for what is no such list.
void set_faults(const std::string& faults);

/// Says that the program will fail on purpose. Throws qn::UsageError if QN_FAULTS is no such list, or if this program
/// was built without fault points: a drill that disturbs nothing must not pass.
void announce_faults();

}  // namespace qn
