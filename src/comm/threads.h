// Threads of a process that was started without launch/run.
#pragma once

namespace qn {

/// Gives OpenMP settings that suit machines on which others work, too, where the user made none: threads of a rank
/// sleep while they wait, those of a process alone do so after a fraction of a millisecond (spinning ones take the
/// cores of other ranks and programs and make small steps hundreds of times slower), and ranks share the cores out. The
/// OpenMP runtime reads its settings before main() starts, so the program is started anew with them, once. Call it
/// before anything starts a thread; returns when there is nothing to do. Throws qn::UsageError when OMP_NUM_THREADS is
/// not what OpenMP expects.
void settle_threads(char** argv);

}  // namespace qn
