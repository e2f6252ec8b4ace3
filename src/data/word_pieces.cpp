#include "data/word_pieces.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/strict_json.h"
#include "data/text_scanner.h"

namespace qn {
namespace {

constexpr int64_t kLongestWord = 100;  // in characters; longer ones are unknown, as in BERT
constexpr size_t kKnownWords = size_t{1} << 20;
constexpr const char *kLowerCase = "do_lower_case", *kStripAccents = "strip_accents",
                     *kSplitCjk = "tokenize_chinese_chars";  // as Hugging Face names them
constexpr std::string_view kUnknownPiece = "[UNK]", kUnknownWord = "<unk>", kLater = "##";

/// Of control characters three; the others, though Unicode counts some as white space, are dropped.
bool is_white(uint32_t c) {
  if (c < 0x80) return c == ' ' || c == '\t' || c == '\n' || c == '\r';
  return c != 0x85 && is_unicode_space(c);
}

/// Control, format, private, not assigned: all of Unicode's "other".
bool is_dropped(uint32_t c) {
  if (c == 0xfffd) return true;
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category == UTF8PROC_CATEGORY_CN || category >= UTF8PROC_CATEGORY_CC;
}

bool is_punctuation(uint32_t c) {
  if (c < 0x80) return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126);
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

bool is_cjk(uint32_t c) {
  return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x20000 && c <= 0x2a6df) ||
         (c >= 0x2a700 && c <= 0x2b73f) || (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b820 && c <= 0x2ceaf) ||
         (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

bool option_of(const nlohmann::json& config, const char* key, bool otherwise, const std::string& name) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return otherwise;
  QN_CHECK(found->is_boolean(), "{}: {} is {}, true or false is due", name, key, found->dump());
  return found->get<bool>();
}

}  // namespace

WordPieceOptions WordPieceOptions::read(const TokenizerFile& file) {
  WordPieceOptions options;
  const std::string name = file.path.string();
  const auto config = parse_strict_json<nlohmann::json>(file.text, name);
  QN_CHECK(config.is_object(), "{} is no object of options", name);
  options.lower_case = option_of(config, kLowerCase, true, name);
  options.strip_accents = option_of(config, kStripAccents, options.lower_case, name);
  options.split_cjk = option_of(config, kSplitCjk, true, name);
  return options;
}

std::string WordPieceOptions::text() const {
  return nlohmann::json{{kLowerCase, lower_case}, {kStripAccents, strip_accents}, {kSplitCjk, split_cjk}}.dump();
}

WordPieces::WordPieces(std::string pieces, const std::string& name, const WordPieceOptions& options,
                       std::vector<TokenizerFile> files)
    : files_(std::move(files)), options_(options), text_(std::move(pieces)) {
  for (std::string_view rest = text_; !rest.empty();) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view token = rest.substr(0, end);
    if (token.ends_with('\r')) token.remove_suffix(1);
    add_token(token, fmt::format("{}{}", name, tokens_.size() + 1));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  const auto found = first_.find(kUnknownPiece);
  QN_CHECK(found != first_.end(), "{} has no piece {}: it is no vocabulary of word pieces like BERT's",
           files_.front().path.string(), kUnknownPiece);
  unknown_ = found->second;
}

std::vector<std::string_view> WordPieces::words() const {
  std::vector<std::string_view> words;
  for (const std::string_view token : tokens_)
    if (token != kUnknownPiece) words.push_back(token);
  return words;
}

void WordPieces::add_token(std::string_view token, const std::string& where) {
  QN_CHECK(!token.empty() && token.find(' ') == std::string_view::npos,
           "{}: '{}' is no word piece: one is due on every line", where, token);
  const bool later = token.starts_with(kLater) && token.size() > kLater.size();
  const bool added = (later ? later_ : first_)
                         .emplace(later ? token.substr(kLater.size()) : token, static_cast<int32_t>(tokens_.size()))
                         .second;
  QN_CHECK(added, "{}: the piece '{}' is there twice", where, token);
  tokens_.push_back(token);
}

int32_t WordPieces::find(std::string_view token) const {
  const bool later = token.starts_with(kLater) && token.size() > kLater.size();
  const auto& table = later ? later_ : first_;
  const auto found = table.find(later ? token.substr(kLater.size()) : token);
  return found == table.end() ? -1 : found->second;
}

bool WordPieces::contains(std::string_view word) const { return word != kUnknownPiece && find(word) >= 0; }

std::string WordPieces::join(std::span<const std::string_view> words) const {
  std::string text;
  for (const std::string_view word : words) {
    if (!contains(word)) continue;
    const bool later = !begins_word(word);
    if (!later && !text.empty()) text += ' ';
    text += later ? word.substr(kLater.size()) : word;
  }
  return text;
}

void WordPieces::cut(std::string_view word, int64_t characters, std::vector<int32_t>& ids) const {
  const size_t before = ids.size();
  bool known = characters <= kLongestWord;
  for (size_t begin = 0; known && begin < word.size();) {
    const auto& table = begin == 0 ? first_ : later_;
    size_t end = word.size();
    auto found = table.find(word.substr(begin, end - begin));
    while (found == table.end() && end > begin + 1) found = table.find(word.substr(begin, --end - begin));
    known = found != table.end();
    if (known) ids.push_back(found->second);
    begin = end;
  }
  if (known) return;
  ids.resize(before);
  ids.push_back(unknown_);
}

void WordPieces::Encoder::encode(std::string_view text, std::vector<int32_t>& ids) {
  for (size_t at = 0; at < text.size();) {
    const auto byte = static_cast<uint8_t>(text[at]);
    int length = 1;
    uint32_t c = byte;
    if (byte >= 0x80) {
      c = decode_utf8(text.substr(at), length);
      QN_CHECK(length > 0, "byte {} of a text to encode is not valid UTF-8", at + 1);
    }
    character(c, ids);
    at += static_cast<size_t>(length);
  }
  end_word(ids);
}

void WordPieces::Encoder::character(uint32_t c, std::vector<int32_t>& ids) {
  const WordPieceOptions& options = pieces_.options_;
  if (is_white(c)) return end_word(ids);
  if (c < 0x80) {
    if (c >= 0x20 && c != 0x7f) add(c >= 'A' && c <= 'Z' && options.lower_case ? c + 32 : c, ids);
    return;
  }
  if (is_dropped(c)) return;
  const bool alone = options.split_cjk && is_cjk(c);
  if (alone) end_word(ids);
  std::array<utf8proc_int32_t, 32> parts{static_cast<utf8proc_int32_t>(c)};
  utf8proc_ssize_t count = 1;
  if (options.strip_accents)
    count = utf8proc_decompose_char(parts[0], parts.data(), parts.size(), UTF8PROC_DECOMPOSE, nullptr);
  for (utf8proc_ssize_t i = 0; i < std::min<utf8proc_ssize_t>(count, parts.size()); ++i) {
    const utf8proc_int32_t part = parts[static_cast<size_t>(i)];
    if (options.strip_accents && utf8proc_category(part) == UTF8PROC_CATEGORY_MN) continue;
    add(static_cast<uint32_t>(options.lower_case ? utf8proc_tolower(part) : part), ids);
    if (options.lower_case && part == 0x130) add(0x307, ids);  // the one letter whose lower case are two characters
  }
  if (alone) end_word(ids);
}

void WordPieces::Encoder::add(uint32_t c, std::vector<int32_t>& ids) {
  const bool alone = is_punctuation(c);
  if (alone) end_word(ids);
  if (c < 0x80) {
    word_ += static_cast<char>(c);
  } else {
    std::array<utf8proc_uint8_t, 4> bytes{};
    const utf8proc_ssize_t count = utf8proc_encode_char(static_cast<utf8proc_int32_t>(c), bytes.data());
    word_.append(reinterpret_cast<const char*>(bytes.data()), static_cast<size_t>(count));
  }
  ++characters_;
  if (alone) end_word(ids);
}

void WordPieces::Encoder::end_word(std::vector<int32_t>& ids) {
  if (word_.empty()) return;
  if (const auto known = known_.find(word_); known != known_.end()) {
    const auto begin = known_ids_.begin() + known->second.begin;
    ids.insert(ids.end(), begin, begin + known->second.size);
  } else {
    const size_t begin = ids.size();
    pieces_.cut(word_, characters_, ids);
    if (characters_ <= kLongestWord && known_.size() < kKnownWords) {
      known_.emplace(word_, Range{static_cast<uint32_t>(known_ids_.size()), static_cast<uint32_t>(ids.size() - begin)});
      known_ids_.insert(known_ids_.end(), ids.begin() + static_cast<std::ptrdiff_t>(begin), ids.end());
    }
  }
  word_.clear();
  characters_ = 0;
}

void WordPieces::Encoder::split(std::string_view text, std::vector<std::string_view>& words) {
  ids_.clear();
  encode(text, ids_);
  for (const int32_t id : ids_) words.push_back(id == pieces_.unknown_ ? kUnknownWord : pieces_.token(id));
}

}  // namespace qn
