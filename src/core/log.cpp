#include "core/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>

#include "core/error.h"

namespace qn {
namespace {

std::shared_ptr<spdlog::logger> own_warnings;  // past the level of other ranks

}  // namespace

void warn_of_this_rank(const std::string& text) {
  const bool passes = spdlog::should_log(spdlog::level::warn) || !own_warnings;
  (passes ? spdlog::default_logger() : own_warnings)->warn("{}", text);
}

void init_logging(int rank, int world_size, const std::string& level) {
  const spdlog::level::level_enum parsed = spdlog::level::from_str(level);
  QN_CHECK(parsed != spdlog::level::off || level == "off",
           "unknown log level '{}': use trace, debug, info, warn or error", level);
  auto logger = std::make_shared<spdlog::logger>("quantnoise", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  logger->set_pattern(world_size > 1 ? fmt::format("%H:%M:%S %^%L%$ [rank {}] %v", rank) : "%H:%M:%S %^%L%$ %v");
  logger->set_level(rank == 0 ? parsed : std::max(parsed, spdlog::level::err));
  own_warnings = logger->clone("quantnoise");
  own_warnings->set_level(std::max(parsed, spdlog::level::warn));
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace qn
