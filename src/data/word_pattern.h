// Text cut into words by a regular expression, which PCRE2 compiles to machine code.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace qn {

class WordPattern {
 public:
  /// An expression of PCRE2 (UTF-8; \p{} are Unicode's properties) that matches at every place of every text.
  explicit WordPattern(const std::string& expression);
  ~WordPattern();

  /// For one thread; the pattern has to outlive it.
  class Matcher {
   public:
    explicit Matcher(const WordPattern& pattern);
    ~Matcher();
    Matcher(Matcher&&) noexcept;

    /// Calls word(std::string_view) for every match, in order. Throws qn::Error when `text` is no UTF-8.
    template <typename Word>
    void for_each(std::string_view text, const Word& word) {
      for (size_t begin = 0; begin < text.size();) {
        const size_t end = match(text, begin);
        word(text.substr(begin, end - begin));
        begin = end;
      }
    }

   private:
    /// The end of the match that begins at `begin`.
    size_t match(std::string_view text, size_t begin);
    struct State;
    std::unique_ptr<State> state_;
  };

 private:
  struct Compiled;
  std::unique_ptr<Compiled> compiled_;
};

}  // namespace qn
