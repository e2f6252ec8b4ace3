#include "cli/commands.h"
namespace qn::cli {
Command add_inspect(CLI::App&) { return [](Communicator&) { return kFailure; }; }
}
