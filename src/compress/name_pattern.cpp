#include "compress/name_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>

#include "core/error.h"

namespace qn {
namespace {

constexpr std::string_view kPrefix = "(module\\.)?(";

std::string pcre_message(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
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
  const std::string whole = std::string(kPrefix) + pattern + ")";
  int error = 0;
  PCRE2_SIZE offset = 0;
  compiled_->pattern = pattern;
  compiled_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(whole.data()), whole.size(), PCRE2_ANCHORED | PCRE2_UTF,
                                  &error, &offset, nullptr);
  QN_CHECK(compiled_->code != nullptr, "{}{}pattern '{}' is not a regular expression: {} (at character {})", where,
           where.empty() ? "" : ": ", pattern, pcre_message(error),
           std::min(pattern.size(), offset > kPrefix.size() ? offset - kPrefix.size() : 0) + 1);
  compiled_->match = pcre2_match_data_create_from_pattern(compiled_->code, nullptr);
  QN_ASSERT(compiled_->match != nullptr);
}

NamePattern::~NamePattern() = default;
NamePattern::NamePattern(NamePattern&&) noexcept = default;
NamePattern& NamePattern::operator=(NamePattern&&) noexcept = default;

bool NamePattern::matches(std::string_view name) const {
  const int found = pcre2_match(compiled_->code, reinterpret_cast<PCRE2_SPTR>(name.data()), name.size(), 0, 0,
                                compiled_->match, nullptr);
  QN_CHECK(found >= 0 || found == PCRE2_ERROR_NOMATCH, "pattern '{}' cannot be matched against '{}': {}",
           compiled_->pattern, name, pcre_message(found));
  return found >= 0;
}

}  // namespace qn
