#include "compress/name_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>

#include "compress/python_pattern.h"
#include "core/error.h"

namespace qn {
namespace {

constexpr std::string_view kPrefix = "(module\\.)?(";

std::string pcre_message(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

/// The pattern with fairseq's prefix for PCRE2. Messages count characters of the pattern alone, from 1.
std::string translate(const std::string& pattern, const std::string& problem) {
  try {
    return pcre2_from_python(std::string(kPrefix) + pattern + ")");
  } catch (const PatternError& error) {
    const size_t position = error.position().value_or(0);
    const size_t at = std::min(pattern.size(), position - std::min(position, kPrefix.size())) + 1;
    fail("{} is not a regular expression of Python's: {}{}", problem, error.what(),
         error.position() ? fmt::format(" (at character {})", at) : "");
  }
}

}  // namespace

struct NamePattern::Compiled {
  pcre2_code* code = nullptr;
  pcre2_match_data* match = nullptr;
  std::string pattern;
  ~Compiled() {
    pcre2_match_data_free(match);
    pcre2_code_free(code);
  }
};

NamePattern::NamePattern(const std::string& pattern, const std::string& where)
    : compiled_(std::make_unique<Compiled>()) {
  const std::string problem = where + (where.empty() ? "" : ": ") + "pattern '" + pattern + "'";
  const std::string translated = translate(pattern, problem);
  int error = 0;
  PCRE2_SIZE offset = 0;
  compiled_->pattern = pattern;
  compiled_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                  PCRE2_ANCHORED | PCRE2_UTF | PCRE2_UCP | PCRE2_DOTALL, &error, &offset, nullptr);
  QN_CHECK(compiled_->code != nullptr, "{} is more than PCRE2 can do: {}; simplify it", problem, pcre_message(error));
  compiled_->match = pcre2_match_data_create_from_pattern(compiled_->code, nullptr);
  QN_ASSERT(compiled_->match != nullptr);
}

NamePattern::~NamePattern() = default;
NamePattern::NamePattern(NamePattern&&) noexcept = default;
NamePattern& NamePattern::operator=(NamePattern&&) noexcept = default;

std::optional<size_t> NamePattern::match_length(std::string_view name) const {
  const int found = pcre2_match(compiled_->code, reinterpret_cast<PCRE2_SPTR>(name.data()), name.size(), 0, 0,
                                compiled_->match, nullptr);
  QN_CHECK(found >= 0 || found == PCRE2_ERROR_NOMATCH, "pattern '{}' cannot be matched against '{}': {}",
           compiled_->pattern, name, pcre_message(found));
  if (found < 0) return std::nullopt;
  return pcre2_get_ovector_pointer(compiled_->match)[1];
}

}  // namespace qn
