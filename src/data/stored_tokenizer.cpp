#include "data/stored_tokenizer.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/strict_json.h"
#include "data/byte_level.h"
#include "data/byte_pair_model.h"
#include "data/byte_pairs.h"
#include "data/word_pieces.h"

namespace qn {
namespace {

using Json = nlohmann::json;

constexpr const char *kMerges = "merges", *kIds = "ids", *kOthers = "others";  // byte pairs
/// What a tokenizer's files may be called: parts that are such files bear their names.
constexpr const char *kVocabulary = "encoder.json", *kMergeList = "vocab.bpe", *kPieces = "vocab.txt",
                     *kPieceOptions = "tokenizer_config.json";
constexpr const char* kFileNames[] = {kVocabulary, kMergeList,    "vocab.json",    "merges.txt",
                                      kPieces,     kPieceOptions, "tokenizer.json"};

/// What is known of byte pairs from their merges: tokens by number. First come the bytes, then what merges give.
struct NumberedTokens {
  std::vector<std::string> tokens;
  std::unordered_map<std::string, int32_t> numbers;
  NumberedTokens() {
    for (const uint8_t byte : byte_level_order()) add(spelled_byte(byte));
  }
  void add(std::string token) {
    numbers.emplace(token, static_cast<int32_t>(tokens.size()));
    tokens.push_back(std::move(token));
  }
};

/// By numbers; false where a merge takes a token that is made later or never.
bool store_merges(const BytePairModel& model, VocabularyParts& parts) {
  NumberedTokens known;
  std::vector<int32_t> sides, rights, ids;
  for (const BytePairModel::Merge& merge : model.merges) {
    const auto left = known.numbers.find(merge.left), right = known.numbers.find(merge.right);
    if (left == known.numbers.end() || right == known.numbers.end()) return false;
    sides.push_back(left->second);
    rights.push_back(right->second);
    known.add(merge.left + merge.right);
  }
  for (const std::string& token : known.tokens) ids.push_back(model.ids.at(token));
  Json others = Json::object();
  for (const auto& [token, id] : model.ids)
    if (!known.numbers.contains(token)) others[token] = id;
  sides.insert(sides.end(), rights.begin(), rights.end());
  parts[kMerges] = number_planes(sides);
  parts[kIds] = number_planes(ids);
  if (!others.empty()) parts[kOthers] = others.dump();
  return true;
}

/// The files that the numbers stand for.
std::vector<TokenizerFile> byte_pair_files(const VocabularyParts& parts, const std::string& where) {
  const std::string merges_name = fmt::format("{}: {}", where, kMerges), ids_name = fmt::format("{}: {}", where, kIds);
  const std::vector<int32_t> sides = numbers_of_planes(part_of(parts, kMerges, where), merges_name);
  const size_t count = sides.size() / 2;
  QN_CHECK(sides.size() % 2 == 0, "{} has {} numbers, pairs are due: the file is damaged", merges_name, sides.size());
  NumberedTokens known;
  std::string merges = "#version: 0.2\n";
  for (size_t i = 0; i < count; ++i) {
    const auto left = static_cast<size_t>(sides[i]), right = static_cast<size_t>(sides[count + i]);
    QN_CHECK(std::max(left, right) < known.tokens.size(), "{}: number {} takes a later token: the file is damaged",
             merges_name, i);
    std::string first = known.tokens[left], second = known.tokens[right];
    // Tokens may double in length with every merge.
    QN_CHECK(merges.size() + 2 * (first.size() + second.size()) <= kMostVocabularyBytes,
             "{} makes more than {} bytes: the file is damaged", merges_name, kMostVocabularyBytes);
    merges += first + ' ' + second + '\n';
    known.add(first + second);
  }
  Json vocabulary = Json::object();
  if (const auto others = parts.find(kOthers); others != parts.end()) {
    const std::string name = fmt::format("{}: {}", where, kOthers);
    vocabulary = parse_strict_json<Json>(others->second, name);
    QN_CHECK(vocabulary.is_object(), "{}: an object of tokens and their ids is due", name);
  }
  const std::vector<int32_t> ids = numbers_of_planes(part_of(parts, kIds, where), ids_name);
  QN_CHECK(ids.size() == known.tokens.size(), "{} has {} numbers, {} tokens are due: the file is damaged", ids_name,
           ids.size(), known.tokens.size());
  for (size_t i = 0; i < ids.size(); ++i) vocabulary[known.tokens[i]] = ids[i];
  const std::filesystem::path folder(where);
  return {{folder / kVocabulary, vocabulary.dump()}, {folder / kMergeList, std::move(merges)}};
}

}  // namespace

void store_tokenizer(const Tokenizer& tokenizer, VocabularyParts& parts) {
  const std::vector<TokenizerFile>& files = tokenizer.files();
  if (const auto* pieces = dynamic_cast<const WordPieces*>(&tokenizer)) {
    std::string& text = parts[kPieces];
    for (int32_t id = 0; id < pieces->size(); ++id) text.append(pieces->token(id)).push_back('\n');
    parts[kPieceOptions] = pieces->options().text();
    return;
  }
  const bool pairs = dynamic_cast<const BytePairs*>(&tokenizer) != nullptr && files.size() == 2;
  if (pairs && store_merges(read_byte_pairs(files[0], files[1]), parts)) return;
  for (const TokenizerFile& file : files) parts[file.path.filename().string()] = file.text;
}

std::unique_ptr<Tokenizer> stored_tokenizer(const VocabularyParts& parts, const std::string& where) {
  if (parts.contains(kMerges) || parts.contains(kIds)) return make_tokenizer(byte_pair_files(parts, where));
  std::vector<TokenizerFile> files;
  for (const char* name : kFileNames)
    if (const auto found = parts.find(name); found != parts.end())
      files.push_back({std::filesystem::path(where) / name, found->second});
  return files.empty() ? nullptr : make_tokenizer(std::move(files));
}

std::string number_planes(std::span<const int32_t> numbers) {
  std::string planes;
  for (const int shift : {0, 8, 16})
    for (const int32_t number : numbers) {
      QN_ASSERT(number >= 0 && number <= kMostNumber, "{}", number);
      planes += static_cast<char>(number >> shift & 0xff);
    }
  return planes;
}

std::vector<int32_t> numbers_of_planes(std::string_view planes, const std::string& where) {
  QN_CHECK(planes.size() % 3 == 0, "{} has {} bytes, which are no numbers of three bytes: the file is damaged", where,
           planes.size());
  std::vector<int32_t> numbers(planes.size() / 3);
  for (size_t i = 0; i < planes.size(); ++i)
    numbers[i % numbers.size()] |= static_cast<int32_t>(static_cast<uint8_t>(planes[i])) << 8 * (i / numbers.size());
  return numbers;
}

}  // namespace qn
