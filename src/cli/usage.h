// What the command line accepts, and what is said where it does not.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>

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

/// The check of an option that takes a whole number of at least `least`.
CLI::Validator at_least(int64_t least);
/// The check of --log-level.
CLI::Validator log_level();

/// Prints what is wrong with the command line, or the help that was asked for; returns the exit code. A command or an
/// option that does not exist is named with the nearest that does.
int report_usage(const CLI::App& app, const CLI::ParseError& error);

}  // namespace qn::cli
