// Regular expressions over weight names, matched at the start of the name as fairseq does.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace qn {

/// A compiled pattern in the syntax of Python's `re`, with its meaning (python_pattern.h). Matches names that begin
/// with
/// `(module\.)?(pattern)`; what follows is free. As in fairseq, \1 is the group that the prefix opens.
class NamePattern {
 public:
  /// Throws qn::Error saying what is wrong with the pattern and where in it; `where` says where it comes from.
  NamePattern(const std::string& pattern, const std::string& where);
  ~NamePattern();
  NamePattern(NamePattern&&) noexcept;
  NamePattern& operator=(NamePattern&&) noexcept;

  bool matches(std::string_view name) const { return match_length(name).has_value(); }
  /// Bytes of the name that the match takes.
  std::optional<size_t> match_length(std::string_view name) const;

 private:
  struct Compiled;
  std::unique_ptr<Compiled> compiled_;
};

}  // namespace qn
