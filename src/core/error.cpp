#include "core/error.h"

namespace qn {

void throw_internal_error(const char* expression, const char* file, int line, const std::string& detail) {
  throw InternalError(fmt::format("internal error at {}:{}: {} does not hold{}{}", file, line, expression,
                                  detail.empty() ? "" : ": ", detail));
}

}  // namespace qn
