// Regular expressions over weight names, matched at the start of the name as fairseq does.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace qn {

/// A compiled pattern (PCRE2). Matches names that begin with `(module\.)?(pattern)`; what follows is free.
class NamePattern {
 public:
  /// Throws qn::Error showing where the pattern is malformed; `where` says where it comes from.
  NamePattern(const std::string& pattern, const std::string& where);
  ~NamePattern();
  NamePattern(NamePattern&&) noexcept;
  NamePattern& operator=(NamePattern&&) noexcept;

  bool matches(std::string_view name) const;

 private:
  struct Compiled;
  std::unique_ptr<Compiled> compiled_;
};

}  // namespace qn
