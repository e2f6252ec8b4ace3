// `quantize --weights`: files of other programs.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "compress/foreign_weights.h"

namespace qn::cli {

/// What `quantize` has for files of other programs.
struct ForeignArguments {
  std::string files, rules;
  int bits = 0;  ///< 0: not given
  RangeMethod range = RangeMethod::channel;
  ForeignOptions options;

  void add_to(CLI::App& command);
  bool given() const { return !files.empty(); }
  /// Quantizes, writes and reports; `out` may be empty. Call it on every rank.
  int run(std::string out, bool dry_run, bool json, const Kernels& kernels, Communicator& comm) const;
};

}  // namespace qn::cli
