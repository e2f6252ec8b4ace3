// What the command line accepts, and what is said where it does not.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <limits>

#include "core/error.h"

namespace qn::cli {

/// What `work` returns; a qn::Error in there is one of usage.
template <typename Work>
auto as_usage(const Work& work) {
  try {
    return work();
  } catch (const Error& error) {
    throw UsageError(error.what());
  }
}

/// The check of every option that takes a whole number: decimal, without zeros in front, which CLI11 takes for octal.
CLI::Validator whole_number(int64_t least = std::numeric_limits<int64_t>::min(),
                            int64_t most = std::numeric_limits<int64_t>::max());
/// The check of --watchdog-seconds.
CLI::Validator watchdog_seconds();
/// The check of --log-level.
CLI::Validator log_level();

/// Throws UsageError where an option or argument of the command line was given an empty value, as scripts do whose
/// variable is not set: it would count as not given.
void refuse_empty_values(const CLI::App& app);

/// Prints what is wrong with the command line, or the help that was asked for; returns the exit code. A command or an
/// option that does not exist is named with the nearest that does.
int report_usage(const CLI::App& app, const CLI::ParseError& error);

}  // namespace qn::cli
