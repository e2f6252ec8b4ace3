// Command-line options for the keys of a configuration struct: `context_window` becomes --context-window.
#pragma once

#include <CLI/CLI.hpp>

#include "core/config.h"

namespace qn::cli {

void add_config_options(CLI::App& app, const ConfigWalk& walk);

/// An option for each key that config.visit() lists, with its default; values arrive in `config`, which must outlive
/// the parser.
template <class S>
void add_config_options(CLI::App& app, S& config) {
  add_config_options(app, [&config](ConfigVisitor& v) { v.visit_body(config); });
}

}  // namespace qn::cli
