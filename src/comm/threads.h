// Threads of a rank that was started without launch/run.
#pragma once

namespace qn {

/// Gives OpenMP settings that suit several ranks on one machine, where the user made none: waiting threads sleep
/// (spinning ones take the cores of other ranks and make small steps hundreds of times slower), and ranks share the
/// cores out. The OpenMP runtime reads its settings before main() starts, so the program is started anew with them,
/// once. Call it first; returns when there is nothing to do.
void settle_threads(char** argv);

}  // namespace qn
