#include "data/split_lines.h"

#include <omp.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <vector>

namespace qn {
namespace {

constexpr size_t kPieceBytes = size_t{1} << 20;  // of text, for one thread at a time

struct Piece {
  std::string_view text;
  std::vector<std::string_view> words;
  std::vector<size_t> ends;  ///< of lines, in words
  std::exception_ptr error;

  void split(Tokenizer::Splitter& splitter) {
    words.clear();
    ends.clear();
    for (std::string_view rest = text; !rest.empty();) {
      splitter.split(strip(take_line(rest)), words);
      ends.push_back(words.size());
    }
  }
};

}  // namespace

std::string_view take_piece(std::string_view& text) {
  std::string_view rest = text.substr(std::min(kPieceBytes, text.size()));
  take_line(rest);
  const std::string_view piece = text.substr(0, text.size() - rest.size());
  text = rest;
  return piece;
}

std::string_view take_line(std::string_view& text) {
  const size_t end = std::min(text.find_first_of("\r\n"), text.size());
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end);
  if (!text.empty()) text.remove_prefix(text.starts_with("\r\n") ? 2 : 1);
  return line;
}

std::string_view strip(std::string_view text) {
  int length = 0;
  while (!text.empty() && is_unicode_space(decode_utf8(text, length)) && length > 0)
    text.remove_prefix(static_cast<size_t>(length));
  while (!text.empty()) {
    size_t last = text.size() - 1;
    while (last > 0 && (static_cast<uint8_t>(text[last]) & 0xc0) == 0x80) --last;
    if (!is_unicode_space(decode_utf8(text.substr(last), length)) || length == 0) break;
    text.remove_suffix(text.size() - last);
  }
  return text;
}

void split_lines(std::string_view text, const Tokenizer& tokenizer,
                 const std::function<void(std::span<const std::string_view> words)>& line) {
  const int threads =
      static_cast<int>(std::min<size_t>(static_cast<size_t>(omp_get_max_threads()), text.size() / kPieceBytes + 1));
  std::vector<Piece> pieces(static_cast<size_t>(threads));
  std::vector<std::unique_ptr<Tokenizer::Splitter>> splitters;
  for (int i = 0; i < threads; ++i) splitters.push_back(tokenizer.splitter());
  while (!text.empty()) {
    for (Piece& piece : pieces) piece.text = take_piece(text);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int i = 0; i < threads; ++i) {
      const auto number = static_cast<size_t>(i);
      try {
        pieces[number].split(*splitters[number]);
      } catch (...) {
        pieces[number].error = std::current_exception();
      }
    }
    for (const Piece& piece : pieces) {
      if (piece.error) std::rethrow_exception(piece.error);
      size_t begin = 0;
      for (const size_t end : piece.ends) {
        line(std::span(piece.words).subspan(begin, end - begin));
        begin = end;
      }
    }
  }
}

}  // namespace qn
