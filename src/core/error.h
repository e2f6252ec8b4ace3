// The one error path: QN_CHECK for what users or files got wrong, QN_ASSERT for our own bugs. Both throw qn::Error;
// only main() ends the process.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>

namespace qn {

/// Something the user can act on; what() says what to do next.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A mistake in what the user asked for: a configuration, a rule or an argument, found before any work. Status 2.
class UsageError : public Error {
 public:
  using Error::Error;
};

/// A broken invariant of the program itself.
class InternalError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

[[noreturn]] void throw_internal_error(const char* expression, const char* file, int line, const std::string& detail);

template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

template <typename... Args>
[[noreturn]] void fail_usage(fmt::format_string<Args...> format, Args&&... args) {
  throw UsageError(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace qn

/// Throws qn::Error with the formatted message unless `condition` holds.
#define QN_CHECK(condition, ...)               \
  do {                                         \
    if (!(condition)) ::qn::fail(__VA_ARGS__); \
  } while (false)

/// The same for what is asked for: throws qn::UsageError.
#define QN_CHECK_USAGE(condition, ...)               \
  do {                                               \
    if (!(condition)) ::qn::fail_usage(__VA_ARGS__); \
  } while (false)

/// Throws qn::InternalError naming the expression and the place unless `condition` holds.
#define QN_ASSERT(condition, ...)                                                                                    \
  do {                                                                                                               \
    if (!(condition))                                                                                                \
      ::qn::throw_internal_error(#condition, __FILE__, __LINE__, std::string{__VA_OPT__(fmt::format(__VA_ARGS__))}); \
  } while (false)
