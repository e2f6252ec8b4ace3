#include "data/word_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "core/error.h"

namespace qn {

struct WordPattern::Compiled {
  pcre2_code* code = nullptr;
  ~Compiled() { pcre2_code_free(code); }
};

struct WordPattern::Matcher::State {
  const Compiled& pattern;
  pcre2_match_data* match = nullptr;
  ~State() { pcre2_match_data_free(match); }
};

WordPattern::WordPattern(const std::string& expression) : compiled_(std::make_unique<Compiled>()) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  compiled_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()), expression.size(),
                                  PCRE2_UTF | PCRE2_ANCHORED, &error, &offset, nullptr);
  QN_ASSERT(compiled_->code != nullptr, "error {} at {} of {}", error, offset, expression);
  pcre2_jit_compile(compiled_->code, PCRE2_JIT_COMPLETE);  // where there is no JIT, matching takes longer
}

WordPattern::~WordPattern() = default;

WordPattern::Matcher::Matcher(const WordPattern& pattern)
    : state_(new State{*pattern.compiled_, pcre2_match_data_create_from_pattern(pattern.compiled_->code, nullptr)}) {
  QN_ASSERT(state_->match != nullptr);
}

WordPattern::Matcher::~Matcher() = default;
WordPattern::Matcher::Matcher(Matcher&&) noexcept = default;

size_t WordPattern::Matcher::match(std::string_view text, size_t begin) {
  // The first call looks at the whole text: is it UTF-8?
  const int found = pcre2_match(state_->pattern.code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), begin,
                                begin == 0 ? 0 : PCRE2_NO_UTF_CHECK, state_->match, nullptr);
  QN_CHECK(found > PCRE2_ERROR_UTF8_ERR1 || found < PCRE2_ERROR_UTF8_ERR21,
           "byte {} of a text to encode is not valid UTF-8", pcre2_get_startchar(state_->match) + 1);
  QN_ASSERT(found >= 0, "PCRE2 error {} at byte {}", found, begin);
  const size_t end = pcre2_get_ovector_pointer(state_->match)[1];
  QN_ASSERT(end > begin, "an empty word at byte {}", begin);
  return end;
}

}  // namespace qn
