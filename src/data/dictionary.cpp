#include "data/dictionary.h"

#include <algorithm>
#include <charconv>
#include <numeric>

#include "core/error.h"
#include "core/file_io.h"
#include "core/text.h"
#include "data/input_text.h"
#include "data/split_checksum.h"
#include "data/text_scanner.h"

namespace qn {
namespace {

constexpr std::string_view kOverwriteFlag = "#fairseq:overwrite";
constexpr size_t kFirstSlots = 64;

/// A line of dict.txt without the white space at its end; `number` counts from 1.
struct Line {
  std::string_view text;
  int64_t number;
};

/// Splits at the last space; false if there is none.
bool split_at_last_space(std::string_view text, std::string_view& head, std::string_view& tail) {
  const size_t space = text.rfind(' ');
  if (space == std::string_view::npos) return false;
  head = text.substr(0, space);
  tail = text.substr(space + 1);
  return true;
}

struct Entry {
  std::string_view token;
  int64_t count = 0;
  bool overwrite = false;
};

bool parse_entry(std::string_view line, Entry& entry) {
  std::string_view field;
  if (!split_at_last_space(line, entry.token, field)) return false;
  if (field == kOverwriteFlag) {
    entry.overwrite = true;
    if (!split_at_last_space(entry.token, entry.token, field)) return false;
  }
  const auto [stop, error] = std::from_chars(field.data(), field.data() + field.size(), entry.count);
  return error == std::errc() && stop == field.data() + field.size() && entry.count >= 0 && !entry.token.empty();
}

/// Collects the lines of a text (universal newlines, strict UTF-8), each without white space at its ends.
class LineCollector {
 public:
  void token(std::string_view token) {
    if (!any_) line_start_ = token.data();
    any_ = true;
    line_end_ = token.data() + token.size();
  }
  void end_line() {
    lines.push_back({any_ ? std::string_view(line_start_, static_cast<size_t>(line_end_ - line_start_)) : "",
                     static_cast<int64_t>(lines.size()) + 1});
    any_ = false;
  }
  std::vector<Line> lines;

 private:
  const char* line_start_ = nullptr;
  const char* line_end_ = nullptr;
  bool any_ = false;
};

}  // namespace

Dictionary::Dictionary() : slots_(kFirstSlots) {
  for (const std::string_view special : {"<s>", "<pad>", "</s>", "<unk>"}) append(special, 1);
}

Dictionary Dictionary::load(const std::filesystem::path& path) {
  QN_CHECK_USAGE(std::filesystem::exists(path), "{}: no such dictionary; make one with 'quantnoise prepare'",
                 path.string());
  const MappedFile file(path);
  check_dictionary_checksum(path, file.bytes());
  const std::string_view text = without_bom(as_text(file.bytes()));
  check_is_text(path.string(), text);
  LineCollector collector;
  scan_text(text, path.string(), collector);
  Dictionary dictionary;
  for (const Line& line : collector.lines) {
    Entry entry;
    QN_CHECK(parse_entry(line.text, entry), "{}:{}: expected '<token> <count>', found '{}'", path.string(), line.number,
             line.text);
    const bool known = dictionary.contains(entry.token);
    QN_CHECK(!known || entry.overwrite,
             "{}:{}: '{}' is there twice; remove one of the lines, or end this one with ' {}' if it shall take over",
             path.string(), line.number, entry.token, kOverwriteFlag);
    const int32_t id = dictionary.append(entry.token, entry.count);
    if (known) dictionary.overwriting_.push_back(id);
  }
  return dictionary;
}

void Dictionary::save(const std::filesystem::path& path) const {
  std::string out;
  out.reserve(text_.size() + ends_.size() * 8);
  for (int32_t id = kSpecialCount; id < size(); ++id) {
    fmt::format_to(std::back_inserter(out), "{} {}", symbol(id), count(id));
    if (std::binary_search(overwriting_.begin(), overwriting_.end(), id)) out.append(" ").append(kOverwriteFlag);
    out += '\n';
  }
  if (without_bom(out).size() < out.size()) out.insert(0, "\xef\xbb\xbf");  // load() takes the first one away
  atomic_write_text(path, out);
}

Dictionary Dictionary::of_tokens(std::span<const std::string_view> tokens) {
  Dictionary dictionary;
  for (const std::string_view token : tokens) {
    const bool known = dictionary.contains(token);
    const int32_t id = dictionary.append(token, 0);
    if (known) dictionary.overwriting_.push_back(id);
  }
  return dictionary;
}

int32_t Dictionary::add(std::string_view token, int64_t count) {
  const int32_t id = find(token, hash_of(token));
  if (id < 0) return append(token, count);
  counts_[static_cast<size_t>(id)] += count;
  return id;
}

void Dictionary::finalize(const DictionaryLimits& limits) {
  QN_CHECK(limits.nwords < 0 || limits.nwords > kSpecialCount,
           "a dictionary of nwords={} entries has no room beside the {} special symbols; use -1 for no limit",
           limits.nwords, kSpecialCount);
  QN_CHECK(limits.padding_factor >= 1, "padding_factor must be 1 or more, is {}", limits.padding_factor);
  std::vector<int32_t> order(counts_.size() - kSpecialCount);
  std::iota(order.begin(), order.end(), kSpecialCount);
  // The order of UTF-8 bytes is the order of code points.
  std::sort(order.begin(), order.end(),
            [&](int32_t a, int32_t b) { return count(a) != count(b) ? count(a) > count(b) : symbol(a) < symbol(b); });
  if (limits.nwords >= 0) order.resize(std::min(order.size(), static_cast<size_t>(limits.nwords - kSpecialCount)));
  Dictionary sorted;
  std::copy_n(counts_.begin(), kSpecialCount, sorted.counts_.begin());
  for (const int32_t id : order) {
    if (count(id) < limits.threshold) break;
    sorted.append(symbol(id), count(id));
  }
  // A text may hold a word that is spelled like a padding word: adding it again changes nothing, the next one will do.
  for (int i = 0; sorted.size() % limits.padding_factor != 0; ++i) sorted.add(fmt::format("madeupword{:04d}", i), 0);
  *this = std::move(sorted);
}

int32_t Dictionary::index(std::string_view token) const {
  const int32_t id = find(token, hash_of(token));
  return id < 0 ? kUnkId : id;
}

std::string_view Dictionary::symbol(int32_t id) const {
  QN_ASSERT(id >= 0 && id < size(), "symbol {} of {}", id, size());
  const auto i = static_cast<size_t>(id);
  const uint64_t begin = i == 0 ? 0 : ends_[i - 1];
  return std::string_view(text_).substr(begin, ends_[i] - begin);
}

int64_t Dictionary::count(int32_t id) const {
  QN_ASSERT(id >= 0 && id < size(), "count {} of {}", id, size());
  return counts_[static_cast<size_t>(id)];
}

uint64_t Dictionary::hash() const {
  // No symbol holds a line end, so joining with one is unambiguous.
  std::string joined;
  joined.reserve(text_.size() + ends_.size());
  for (int32_t id = 0; id < size(); ++id) joined.append(symbol(id)).push_back('\n');
  return hash_bytes(joined.data(), joined.size());
}

uint64_t Dictionary::hash_of(std::string_view token) { return hash_bytes(token.data(), token.size()); }

int32_t Dictionary::find(std::string_view token, uint64_t hash) const {
  const size_t mask = slots_.size() - 1;
  const auto low = static_cast<uint32_t>(hash);
  for (size_t at = low & mask;; at = (at + 1) & mask) {
    const Slot& slot = slots_[at];
    if (slot.id < 0) return -1;
    if (slot.hash == low && symbol(slot.id) == token) return slot.id;
  }
}

int32_t Dictionary::append(std::string_view token, int64_t count) {
  const auto id = static_cast<int32_t>(counts_.size());
  QN_CHECK(id < INT32_MAX, "a dictionary cannot hold more than {} entries", INT32_MAX);
  if (2 * (counts_.size() + 1) > slots_.size()) grow();
  const uint64_t hash = hash_of(token);
  text_.append(token);
  ends_.push_back(text_.size());
  counts_.push_back(count);
  insert_slot(hash, id);
  return id;
}

void Dictionary::insert_slot(uint64_t hash, int32_t id) {
  const size_t mask = slots_.size() - 1;
  const auto low = static_cast<uint32_t>(hash);
  size_t at = low & mask;
  // An equal symbol is taken over: that is what #fairseq:overwrite means.
  while (slots_[at].id >= 0 && !(slots_[at].hash == low && symbol(slots_[at].id) == symbol(id))) at = (at + 1) & mask;
  slots_[at] = {low, id};
}

void Dictionary::grow() {
  slots_.assign(slots_.size() * 2, Slot{});
  for (int32_t id = 0; id < size(); ++id) insert_slot(hash_of(symbol(id)), id);
}

}  // namespace qn
