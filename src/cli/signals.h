// The signals that ask the program to end: SIGINT, SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2. No handler ever runs: they are
// blocked in all threads and taken by a thread of their own. A handler's frame would land on the stack of a thread that
// computes, where oneDNN's products keep live data below the stack pointer.
#pragma once

#include <optional>

namespace qn::cli {

/// Blocks them in this thread and all that it will start. Call it first in main(), before anything starts a thread:
/// nothing is lost, what comes is held for the thread that take_stop_signals() starts, also across exec(). SIGHUP stays
/// ignored where it is (nohup). The program starts no processes; one that did would have to unblock them in there.
void block_stop_signals();

/// Starts the thread that takes them, for the rest of the process. Until end_on_stop_signals() is called the first
/// one only makes stop_requested() true; a SIGINT a second or more after it ends the program at once.
void take_stop_signals();

/// Whether a signal has come: what runs saves its work and ends.
bool stop_requested();

/// From now on there is nothing to save: a signal, also one that has come already, ends the program at once, with
/// `status` (default: 128 + the signal's number) and without files half written.
void end_on_stop_signals(std::optional<int> status = {});

}  // namespace qn::cli
