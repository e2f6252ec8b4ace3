// The vocabulary: token <-> id, with counts. Equal, entry by entry and file by file, to what fairseq-preprocess makes
// (fairseq semantics 5.1 and 6.1). Ids 0 <s>, 1 <pad>, 2 </s>, 3 <unk> come first, then tokens by falling count.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/special_tokens.h"

namespace qn {

inline constexpr int32_t kSpecialCount = 4;

/// How Dictionary::finalize() cuts and pads; the defaults are fairseq's.
struct DictionaryLimits {
  int64_t threshold = 0;       ///< tokens counted less often become <unk>
  int64_t nwords = -1;         ///< at most this many entries, the four specials included; -1: no limit
  int64_t padding_factor = 8;  ///< madeupword0000, ... are appended until the size is a multiple of this
};

class Dictionary {
 public:
  /// Holds the four special symbols, each with count 1.
  Dictionary();

  /// Reads dict.txt: one "token count" per line, split at the last space; specials are not in the file. A token that is
  /// already there is an error unless its line ends with #fairseq:overwrite, which makes it a new entry that takes the
  /// token over. Throws qn::Error naming file and line.
  static Dictionary load(const std::filesystem::path& path);
  /// Writes dict.txt so that load() gives the same entries. The file appears complete or not at all.
  void save(const std::filesystem::path& path) const;

  /// The specials, then `tokens` in this order, with count 0; a token that comes again takes over.
  static Dictionary of_tokens(std::span<const std::string_view> tokens);

  /// Adds `count` to the token's count, appending the token if it is new. Returns its id.
  int32_t add(std::string_view token, int64_t count = 1);

  /// Sorts by count (falling; ties by Unicode code points, rising) and applies the limits. Specials keep their place.
  void finalize(const DictionaryLimits& limits);

  /// Id of a token; kUnkId if there is none.
  int32_t index(std::string_view token) const;
  bool contains(std::string_view token) const { return find(token, hash_of(token)) >= 0; }
  /// Valid until the dictionary changes. `id` must be in [0, size()).
  std::string_view symbol(int32_t id) const;
  int64_t count(int32_t id) const;
  /// Number of entries, specials and padding words included.
  int64_t size() const { return static_cast<int64_t>(counts_.size()); }

  /// XXH3 over the symbols in id order: equal hashes mean equal ids for all tokens. Stored in checkpoints and models.
  uint64_t hash() const;

 private:
  struct Slot {
    uint32_t hash = 0;
    int32_t id = -1;
  };
  static uint64_t hash_of(std::string_view token);
  int32_t find(std::string_view token, uint64_t hash) const;
  int32_t append(std::string_view token, int64_t count);
  void insert_slot(uint64_t hash, int32_t id);
  void grow();

  // All symbols in one string keeps a vocabulary of a million types in a handful of allocations.
  std::string text_;
  std::vector<uint64_t> ends_;
  std::vector<int64_t> counts_;
  std::vector<Slot> slots_;           // open addressing, linear probing, at most half full
  std::vector<int32_t> overwriting_;  // ids loaded with #fairseq:overwrite
};

}  // namespace qn
