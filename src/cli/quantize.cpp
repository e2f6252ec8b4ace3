#include "cli/commands.h"
namespace qn::cli {
Command add_quantize(CLI::App&) { return [](Communicator&) { return kFailure; }; }
}
