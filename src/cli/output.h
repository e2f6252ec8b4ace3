// Standard output that cannot lose text silently.
#pragma once

namespace qn::cli {

/// Status of a command whose reader closed the pipe (`| head`): what shells report for programs that SIGPIPE ends.
inline constexpr int kClosedPipe = 141;

/// Call it first. Everything printed to std::cout is written by this code from then on, which remembers the first
/// failure. SIGPIPE and SIGXFSZ are ignored, so that a closed pipe or the limit of a file's size is a failed write
/// instead of the end of a run; closed standard streams are opened on /dev/null, so that no other file takes their
/// place and gets what is printed.
void guard_output();

/// Call it last: writes what is still buffered and returns `status`, or, when something could not be written, logs why
/// and returns kFailure; kClosedPipe without a word where nobody reads any more.
int finish_output(int status);

}  // namespace qn::cli
