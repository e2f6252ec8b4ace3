// Logging for every rank: lines go to stderr, prefixed with the rank when there is more than one.
#pragma once

#include <spdlog/spdlog.h>

#include <string>

namespace qn {

/// Sets up the process-wide logger. Ranks other than 0 print errors only: what they would warn of, rank 0 warns of,
/// too. `level`: trace, debug, info, warn, error (throws qn::Error on anything else).
void init_logging(int rank, int world_size, const std::string& level);

/// A warning that concerns this rank alone: printed on any.
void warn_of_this_rank(const std::string& text);

}  // namespace qn
