#include "data/byte_pairs.h"

#include <algorithm>
#include <queue>
#include <utility>

#include "core/error.h"
#include "core/file_kind.h"
#include "data/byte_level.h"

namespace qn {
namespace {

constexpr size_t kKnownWords = size_t{1} << 20, kLongestKnown = 64;  // of an encoder's memory

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

}  // namespace

BytePairs::BytePairs(BytePairModel model, std::vector<TokenizerFile> files)
    : files_(std::move(files)),
      prefix_space_(model.prefix_space),
      pattern_(model.by_words ? byte_level_words() : one_word()) {
  take_vocabulary(model);
  take_merges(model);
  check_merges_are_complete(model);
  name_words();
}

BytePairs::BytePairs(const TokenizerFile& vocabulary, const TokenizerFile& merges)
    : BytePairs(read_byte_pairs(vocabulary, merges), {vocabulary, merges}) {}

BytePairs::BytePairs(const std::filesystem::path& vocabulary, const std::filesystem::path& merges)
    : BytePairs(TokenizerFile{vocabulary, read_text_file(vocabulary)}, TokenizerFile{merges, read_text_file(merges)}) {}

void BytePairs::take_vocabulary(BytePairModel& model) {
  ids_ = std::move(model.ids);
  const std::string& name = model.vocabulary_name;
  int32_t largest = 0;
  for (const auto& entry : ids_) largest = std::max(largest, entry.second);
  QN_CHECK(largest < 2 * std::ssize(ids_), "{} has {} tokens with ids up to {}: most ids have no token", name,
           ids_.size(), largest);
  texts_.resize(static_cast<size_t>(largest) + 1);
  std::vector<bool> taken(texts_.size());
  for (const auto& [token, id] : ids_) {
    const auto i = static_cast<size_t>(id);
    QN_CHECK(!taken[i], "{}: two tokens have the id {}, one of them '{}'", name, id, token);
    taken[i] = true;
    texts_[i] = bytes_of_token(token);
  }
  for (int b = 0; b < 256; ++b) {
    const std::string token = spelled_byte(static_cast<uint8_t>(b));
    const auto found = ids_.find(token);
    QN_CHECK(found != ids_.end(),
             "{} has no token '{}' for the byte 0x{:02x}: it is no byte-level vocabulary like GPT-2's", name, token, b);
    byte_ids_[static_cast<size_t>(b)] = found->second;
  }
}

void BytePairs::take_merges(const BytePairModel& model) {
  for (const auto& [left, right, number] : model.merges) {
    const auto where = [&, n = number] { return fmt::format("{}{}", model.merge_prefix, n); };
    const auto id_of = [&](const std::string& token) {
      const auto found = ids_.find(token);
      QN_CHECK(found != ids_.end(), "{}: {} has no token '{}': vocabulary and merges do not belong together", where(),
               model.vocabulary_name, token);
      return found->second;
    };
    const Merge merge{static_cast<int32_t>(merged_.size()), id_of(left + right)};
    const bool added = merges_.emplace(pair_key(id_of(left), id_of(right)), merge).second;
    QN_CHECK(added, "{}: the pair '{} {}' is there twice", where(), left, right);
    merged_.push_back(merge.id);
  }
}

void BytePairs::check_merges_are_complete(const BytePairModel& model) const {
  std::vector<bool> made(texts_.size());
  for (const int32_t id : byte_ids_) made[static_cast<size_t>(id)] = true;
  for (const int32_t id : merged_) made[static_cast<size_t>(id)] = true;
  const std::pair<const std::string, int32_t>* first = nullptr;
  int64_t count = 0;
  for (const auto& entry : ids_) {
    if (made[static_cast<size_t>(entry.second)] || model.is_special(entry.first)) continue;
    ++count;
    if (first == nullptr || entry.second < first->second) first = &entry;
  }
  QN_CHECK(count == 0,
           "{} has {} merges, none of which makes '{}' or {} other tokens of {}: the list is cut short, or the files "
           "do not belong together",
           model.merges_name, merged_.size(), first->first, count - 1, model.vocabulary_name);
}

void BytePairs::name_words() {
  words_.resize(texts_.size());
  const auto id_is = [&](const char* token, int32_t id) { return find(token) == id; };
  if (!(id_is("<s>", 0) && id_is("<pad>", 1) && id_is("</s>", 2) && id_is("<unk>", 3))) {
    for (const auto& entry : ids_) words_[static_cast<size_t>(entry.second)] = std::to_string(entry.second);
  } else {
    for (const auto& [token, id] : ids_) words_[static_cast<size_t>(id)] = token;
    int32_t number = 0;
    for (const uint8_t byte : byte_level_order())
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
  if (prefix_space_ && text.starts_with(' ')) text.erase(0, 1);
  return text;
}

std::vector<std::string_view> BytePairs::words() const {
  std::vector<std::string_view> words;
  for (const std::string& word : words_)
    if (!word.empty()) words.push_back(word);
  return words;
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
  if (pairs_.prefix_space_ && !text.empty() && !text.starts_with(' ')) {
    with_blank_.assign(" ").append(text);
    text = with_blank_;
  }
  matcher_.for_each(text, [&](std::string_view word) { encode_word(word, ids); });
}

void BytePairs::Encoder::split(std::string_view text, std::vector<std::string_view>& words) {
  ids_.clear();
  encode(text, ids_);
  for (const int32_t id : ids_) words.push_back(pairs_.word(id));
}

}  // namespace qn
