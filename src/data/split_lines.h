// The words of a text's lines by a tokenizer, on several threads.
#pragma once

#include <functional>
#include <span>
#include <string_view>

#include "data/text_scanner.h"
#include "data/tokenizer.h"

namespace qn {

/// Calls line(words) for every line of `text`, in order, from the calling thread. Lines end as in scan_text(); white
/// space at their ends is left out. `text` must be UTF-8.
void split_lines(std::string_view text, const Tokenizer& tokenizer,
                 const std::function<void(std::span<const std::string_view> words)>& line);

/// Whole lines of about a mebibyte, what one thread takes at a time, taken off the beginning of `text`.
std::string_view take_piece(std::string_view& text);

/// The line at the beginning of `text` (not empty), which is taken off together with its end.
std::string_view take_line(std::string_view& text);

/// Text without Unicode's white space at its ends.
std::string_view strip(std::string_view text);

/// scan_text() with the words of a tokenizer; without one it is scan_text(). With one, `text` must have been scanned
/// before: only then is it known to be UTF-8.
template <typename Visitor>
void scan_words(std::string_view text, std::string_view name, const Tokenizer* tokenizer, Visitor&& visitor) {
  if (tokenizer == nullptr) return scan_text(text, name, visitor);
  split_lines(text, *tokenizer, [&](std::span<const std::string_view> words) {
    for (const std::string_view word : words) visitor.token(word);
    visitor.end_line();
  });
}

}  // namespace qn
