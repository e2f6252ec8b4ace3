#include "cli/usage.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "comm/watchdog.h"
#include "core/text.h"

namespace qn::cli {
namespace {

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  return names;
}

/// Those that may stand after the command that was given, and the program's own.
std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  const auto add = [&](const CLI::App& part) {
    for (const CLI::Option* option : part.get_options())
      for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  };
  add(app);
  for (const CLI::App* command : app.get_subcommands()) add(*command);
  return names;
}

/// "; did you mean 'eval'?", unless nothing is near.
std::string suggestion(const std::string& word, const std::vector<std::string>& names) {
  const std::vector<std::string> near = nearest(word, names);
  if (near.empty() || edit_distance(word, near[0]) > std::max<size_t>(2, word.size() / 3)) return "";
  return fmt::format("; did you mean '{}'?", near[0]);
}

/// What of the command line nobody understood; empty if that is not the matter.
std::string unknown_word(const CLI::App& app) {
  const bool command_given = !app.get_subcommands().empty();
  for (const std::string& argument : app.remaining(true)) {
    if (argument.starts_with("-")) {
      const std::string name = argument.substr(0, argument.find('='));
      return fmt::format("there is no option {}{}", name, suggestion(name, option_names(app)));
    }
    if (!command_given)
      return fmt::format("there is no command '{}'{}", argument, suggestion(argument, command_names(app)));
    return fmt::format("'{}' is one argument too many", argument);
  }
  return "";
}

}  // namespace

CLI::Validator whole_number(int64_t least, int64_t most) {
  const auto check = [least, most](const std::string& text) {
    using Limits = std::numeric_limits<int64_t>;
    int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool whole = error == std::errc() && end == text.data() + text.size() && std::to_string(value) == text;
    if (whole && value >= least && value <= most) return std::string();
    const bool zeros = text.starts_with("0") || text.starts_with("-0");
    return fmt::format("must be a whole number{}{}; got '{}'{}",
                       least > Limits::min() ? fmt::format(", at least {}", least) : "",
                       most < Limits::max() ? fmt::format(", at most {}", most) : "", text,
                       zeros && !whole ? ": write it in decimal digits, without zeros in front" : "");
  };
  return CLI::Validator(check, "");
}

CLI::Validator watchdog_seconds() {
  const auto check = [](const std::string& text) {
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    const bool fits = !text.empty() && *end == '\0' && watchdog_seconds_fit(value);
    return fits ? std::string() : fmt::format("must be 0 or at least 1; got '{}'", text);
  };
  return CLI::Validator(check, "");
}

CLI::Validator log_level() {
  const auto check = [](const std::string& text) {
    static const std::vector<std::string> names{"trace", "debug", "info", "warn", "error", "off"};
    const bool known = text == "off" || spdlog::level::from_str(text) != spdlog::level::off;
    return known ? std::string() : wrong_choice(text, fmt::format("'{}'", text), names);
  };
  return CLI::Validator(check, "");
}

void refuse_empty_values(const CLI::App& app) {
  for (const CLI::Option* option : app.get_options())
    for (const std::string& value : option->results())
      QN_CHECK_USAGE(!value.empty(), "{} is empty: give it a value, or leave it out", option->get_name());
  for (const CLI::App* command : app.get_subcommands()) refuse_empty_values(*command);
}

int report_usage(const CLI::App& app, const CLI::ParseError& error) {
  const std::string unknown = error.get_exit_code() == 0 ? "" : unknown_word(app);
  if (unknown.empty()) return app.exit(error) == 0 ? kSuccess : kUsage;
  std::cerr << unknown << "\nRun with --help for more information.\n";
  return kUsage;
}

}  // namespace qn::cli
