#include "data/byte_pairs.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <queue>
#include <utility>

#include "core/error.h"
#include "core/file_io.h"
#include "core/file_kind.h"
#include "core/strict_json.h"
#include "core/text.h"
#include "data/text_scanner.h"
#include "data/word_pattern.h"

namespace qn {
namespace {

/// Of words: contractions, then letters, digits or other signs, each with a blank before them; of white space in a row
/// the last one goes to what follows. \s is Unicode's property White_Space, which PCRE2's \s is not quite.
std::string word_expression() {
  const std::string space = R"(\t-\r\x20\x85\xa0\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
  return R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}++| ?\p{N}++| ?[^\p{L}\p{N})" + space + "]++|[" + space + "]+(?=[" + space +
         R"(]|\z)|[)" + space + "]++";
}

constexpr int32_t kMostTokens = 1 << 24;                             // ids of a vocabulary; more is damage
constexpr size_t kKnownWords = size_t{1} << 20, kLongestKnown = 64;  // of an encoder's memory

/// GPT-2's printable character for every byte: itself where that is one, otherwise 256, 257, ... in order of bytes.
struct ByteCharacters {
  std::array<uint32_t, 256> character{};
  std::vector<int32_t> byte = std::vector<int32_t>(512, -1);  ///< by character
  std::vector<uint8_t> order;                                 ///< bytes in the order of GPT-2's ids
};

const ByteCharacters& byte_characters() {
  static const ByteCharacters all = [] {
    ByteCharacters made;
    const auto printable = [](int b) { return (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae; };
    uint32_t next = 256;
    for (const bool themselves : {true, false})
      for (int b = 0; b < 256; ++b) {
        if (printable(b) != themselves) continue;
        const uint32_t c = themselves ? static_cast<uint32_t>(b) : next++;
        made.character[static_cast<size_t>(b)] = c;
        made.byte[c] = b;
        made.order.push_back(static_cast<uint8_t>(b));
      }
    return made;
  }();
  return all;
}

/// The character of a byte, which is below U+0800, in UTF-8.
std::string spelled(uint8_t byte) {
  const uint32_t c = byte_characters().character[byte];
  if (c < 0x80) return {static_cast<char>(c)};
  return {static_cast<char>(0xc0 | c >> 6), static_cast<char>(0x80 | (c & 0x3f))};
}

/// The bytes that a token stands for; what is not spelled in GPT-2's characters stands for itself.
std::string bytes_of(const std::string& token) {
  std::string bytes;
  for (std::string_view rest = token; !rest.empty();) {
    int length = 0;
    const uint32_t c = decode_utf8(rest, length);
    const int32_t byte = length > 0 && c < byte_characters().byte.size() ? byte_characters().byte[c] : -1;
    if (byte < 0) return token;
    bytes += static_cast<char>(byte);
    rest.remove_prefix(static_cast<size_t>(length));
  }
  return bytes;
}

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

}  // namespace

struct BytePairs::Pattern {
  WordPattern words{word_expression()};
};

struct BytePairs::Encoder::Matcher {
  WordPattern::Matcher words;
};

BytePairs::BytePairs(const std::filesystem::path& vocabulary, const std::filesystem::path& merges)
    : files_{vocabulary, merges}, pattern_(std::make_unique<Pattern>()) {
  read_vocabulary(vocabulary);
  read_merges(merges);
  name_words();
}

BytePairs::~BytePairs() = default;

void BytePairs::read_vocabulary(const std::filesystem::path& path) {
  const std::string name = path.string();
  const auto json = parse_strict_json<nlohmann::json>(read_text_file(path), name);
  QN_CHECK(json.is_object() && !json.empty(), "{} is no vocabulary: an object of tokens and their ids is due", name);
  int32_t largest = 0;
  for (const auto& [token, value] : json.items()) {
    const int64_t id = json_integer(value, fmt::format("{}: the id of '{}'", name, token), 0, kMostTokens - 1);
    ids_.emplace(token, static_cast<int32_t>(id));
    largest = std::max(largest, static_cast<int32_t>(id));
  }
  QN_CHECK(largest < 2 * std::ssize(ids_), "{} has {} tokens with ids up to {}: most ids have no token", name,
           ids_.size(), largest);
  texts_.resize(static_cast<size_t>(largest) + 1);
  std::vector<bool> taken(texts_.size());
  for (const auto& [token, id] : ids_) {
    const auto i = static_cast<size_t>(id);
    QN_CHECK(!taken[i], "{}: two tokens have the id {}, one of them '{}'", name, id, token);
    taken[i] = true;
    texts_[i] = bytes_of(token);
  }
  for (int b = 0; b < 256; ++b) {
    const auto found = ids_.find(spelled(static_cast<uint8_t>(b)));
    QN_CHECK(found != ids_.end(),
             "{} has no token '{}' for the byte 0x{:02x}: it is no byte-level vocabulary like GPT-2's", name,
             spelled(static_cast<uint8_t>(b)), b);
    byte_ids_[static_cast<size_t>(b)] = found->second;
  }
}

void BytePairs::read_merges(const std::filesystem::path& path) {
  const std::string text = read_text_file(path);
  int64_t line = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view content(text.data() + begin, end - begin);
    if (content.ends_with('\r')) content.remove_suffix(1);
    ++line;
    if (!content.empty() && !(line == 1 && content.starts_with("#version")))
      add_merge(content, fmt::format("{}:{}", path.string(), line));
    begin = end + 1;
  }
}

void BytePairs::add_merge(std::string_view line, const std::string& where) {
  const size_t space = line.find(' ');
  QN_CHECK(space != std::string_view::npos && space > 0 && space + 1 < line.size() &&
               line.find(' ', space + 1) == std::string_view::npos,
           "{}: expected two tokens with a space between them, found '{}'", where, line);
  const std::string left(line.substr(0, space)), right(line.substr(space + 1));
  const auto id_of = [&](const std::string& token) {
    const auto found = ids_.find(token);
    QN_CHECK(found != ids_.end(), "{}: {} has no token '{}': the two files do not belong together", where,
             files_[0].string(), token);
    return found->second;
  };
  const Merge merge{static_cast<int32_t>(merged_.size()), id_of(left + right)};
  const bool added = merges_.emplace(pair_key(id_of(left), id_of(right)), merge).second;
  QN_CHECK(added, "{}: the pair '{}' is there twice", where, line);
  merged_.push_back(merge.id);
}

void BytePairs::name_words() {
  words_.resize(texts_.size());
  const auto id_is = [&](const char* token, int32_t id) { return find(token) == id; };
  if (!(id_is("<s>", 0) && id_is("<pad>", 1) && id_is("</s>", 2) && id_is("<unk>", 3))) {
    for (const auto& entry : ids_) words_[static_cast<size_t>(entry.second)] = std::to_string(entry.second);
  } else {
    for (const auto& [token, id] : ids_) words_[static_cast<size_t>(id)] = token;
    int32_t number = 0;
    for (const uint8_t byte : byte_characters().order)
      words_[static_cast<size_t>(byte_ids_[byte])] = std::to_string(number++);
    for (const int32_t id : merged_) words_[static_cast<size_t>(id)] = std::to_string(number++);
    if (const auto end = find("<|endoftext|>")) words_[static_cast<size_t>(*end)] = std::to_string(number);
  }
  for (size_t id = 0; id < words_.size(); ++id)
    if (!words_[id].empty()) ids_of_words_.emplace(words_[id], static_cast<int32_t>(id));
}

std::optional<int32_t> BytePairs::find(const std::string& token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

std::string BytePairs::decode(std::span<const int32_t> ids) const {
  std::string text;
  for (const int32_t id : ids) {
    QN_ASSERT(id >= 0 && id < size(), "token {} of {}", id, size());
    text += texts_[static_cast<size_t>(id)];
  }
  return text;
}

std::string BytePairs::join(std::span<const std::string_view> words) const {
  std::string text;
  for (const std::string_view word : words)
    if (const auto found = ids_of_words_.find(word); found != ids_of_words_.end())
      text += texts_[static_cast<size_t>(found->second)];
  return text;
}

bool BytePairs::begins_word(std::string_view word) const {
  const auto found = ids_of_words_.find(word);
  return found == ids_of_words_.end() || texts_[static_cast<size_t>(found->second)].starts_with(' ');
}

const BytePairs::Merge* BytePairs::merge_of(int32_t left, int32_t right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

/// A queue of possible merges over a linked list keeps words of any length fast; most have a handful of bytes.
void BytePairs::merge(std::vector<int32_t>& ids, size_t begin) const {
  struct Candidate {
    int32_t rank;
    uint32_t at;
    int32_t left, right;  // what it was found for: outdated when they are others by now
    bool operator>(const Candidate& other) const { return std::pair(rank, at) > std::pair(other.rank, other.at); }
  };
  const auto count = static_cast<uint32_t>(ids.size() - begin);
  int32_t* const tokens = ids.data() + begin;
  std::vector<uint32_t> next(count), previous(count);
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto consider = [&](uint32_t at) {
    if (at >= count || next[at] >= count) return;
    if (const Merge* found = merge_of(tokens[at], tokens[next[at]]))
      queue.push({found->rank, at, tokens[at], tokens[next[at]]});
  };
  for (uint32_t i = 0; i < count; ++i) next[i] = i + 1, previous[i] = i - 1;  // the first one's is count or more
  for (uint32_t i = 0; i < count; ++i) consider(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    const uint32_t right = tokens[best.at] < 0 ? count : next[best.at];
    if (right >= count || tokens[best.at] != best.left || tokens[right] != best.right) continue;
    tokens[best.at] = merge_of(best.left, best.right)->id;
    tokens[right] = -1;
    next[best.at] = next[right];
    if (next[right] < count) previous[next[right]] = best.at;
    consider(previous[best.at]);
    consider(best.at);
  }
  ids.erase(std::remove(ids.begin() + static_cast<std::ptrdiff_t>(begin), ids.end(), -1), ids.end());
}

BytePairs::Encoder::Encoder(const BytePairs& pairs)
    : pairs_(pairs), matcher_(new Matcher{WordPattern::Matcher(pairs.pattern_->words)}) {}

BytePairs::Encoder::~Encoder() = default;

void BytePairs::Encoder::encode_word(std::string_view word, std::vector<int32_t>& ids) {
  if (const auto known = known_.find(word); known != known_.end()) {
    const auto begin = known_ids_.begin() + known->second.begin;
    ids.insert(ids.end(), begin, begin + known->second.size);
    return;
  }
  const size_t begin = ids.size();
  for (const char c : word) ids.push_back(pairs_.byte_ids_[static_cast<uint8_t>(c)]);
  if (word.size() > 1) pairs_.merge(ids, begin);
  if (word.size() > kLongestKnown || known_.size() >= kKnownWords) return;
  known_.emplace(word, Range{static_cast<uint32_t>(known_ids_.size()), static_cast<uint32_t>(ids.size() - begin)});
  known_ids_.insert(known_ids_.end(), ids.begin() + static_cast<std::ptrdiff_t>(begin), ids.end());
}

void BytePairs::Encoder::encode(std::string_view text, std::vector<int32_t>& ids) {
  matcher_->words.for_each(text, [&](std::string_view word) { encode_word(word, ids); });
}

void BytePairs::Encoder::split(std::string_view text, std::vector<std::string_view>& words) {
  ids_.clear();
  encode(text, ids_);
  for (const int32_t id : ids_) words.push_back(pairs_.word(id));
}

}  // namespace qn
