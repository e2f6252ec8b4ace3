#include "data/token_stream.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <string_view>
#include <utility>

#include "core/error.h"
#include "core/file_kind.h"
#include "core/text.h"
#include "data/split_checksum.h"

namespace qn {
namespace {

constexpr std::string_view kMagic = kTokenIndexMagic;
constexpr uint64_t kVersion = 1;
// Magic, u64 version, u8 type code, u64 number of sentences; then n int32 sizes and n int64 byte offsets.
constexpr size_t kHeaderBytes = kMagic.size() + 8 + 1 + 8;
constexpr size_t kBytesPerSentence = sizeof(int32_t) + sizeof(int64_t);

/// Calls `use` with a value of the C++ type that `type` stands for.
template <typename Use>
void with_token_type(TokenType type, Use&& use) {
  switch (type) {
    case TokenType::u8:
      return use(uint8_t{});
    case TokenType::i8:
      return use(int8_t{});
    case TokenType::i16:
      return use(int16_t{});
    case TokenType::i32:
      return use(int32_t{});
    case TokenType::i64:
      return use(int64_t{});
    case TokenType::u16:
      return use(uint16_t{});
    case TokenType::u32:
      return use(uint32_t{});
    case TokenType::u64:
      return use(uint64_t{});
  }
  fail("token type code {} is not known", static_cast<int>(type));
}

/// Reads a little-endian value of a file that promises no alignment.
template <typename T>
T load_at(std::span<const std::byte> bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

template <typename T>
void append_raw(std::string& out, const T& value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

/// Megatron-LM's indices begin alike; behind the number of sequences they have one of documents, and a list of them at
/// the end (and, with more than one modality, a byte per sequence).
bool is_megatron_index(std::span<const std::byte> bytes, uint64_t count) {
  const size_t header = kHeaderBytes + sizeof(uint64_t);
  if (bytes.size() < header) return false;
  const auto documents = load_at<uint64_t>(bytes, kHeaderBytes);
  if (count > bytes.size() || documents > bytes.size()) return false;
  const uint64_t size = header + count * kBytesPerSentence + documents * sizeof(int64_t);
  return bytes.size() == size || bytes.size() == size + count;
}

}  // namespace

std::vector<std::string> splits_in(const std::filesystem::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (entry.path().extension() == ".idx") names.push_back(entry.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

size_t token_bytes(TokenType type) {
  size_t bytes = 0;
  with_token_type(type, [&](auto zero) { bytes = sizeof(zero); });
  return bytes;
}

TokenType token_type_for(int64_t vocabulary_size) {
  return vocabulary_size < 65500 ? TokenType::u16 : vocabulary_size < 4294967295 ? TokenType::u32 : TokenType::i64;
}

TokenStream::TokenStream(const std::filesystem::path& prefix)
    : name_(prefix.string()), index_(name_ + ".idx"), data_(name_ + ".bin") {
  read_index();
  check_data();
}

TokenStream TokenStream::open(const std::filesystem::path& directory, const std::string& name) {
  QN_CHECK_USAGE(std::filesystem::is_directory(directory),
                 "{}: no such data directory; make one with 'quantnoise prepare'", directory.string());
  if (!std::filesystem::exists(directory / (name + ".idx"))) {
    const std::vector<std::string> names = splits_in(directory);
    QN_CHECK_USAGE(!names.empty(), "{} holds no prepared data (*.idx and *.bin); make it with 'quantnoise prepare'",
                   directory.string());
    fail_usage("{} has no split '{}'; it has: {}", directory.string(), name, fmt::join(names, ", "));
  }
  return TokenStream(directory / name);
}

void TokenStream::read_index() {
  const std::span<const std::byte> bytes = index_.bytes();
  constexpr const char* kRemedy = "prepare the data again (or copy both files again)";
  QN_CHECK(
      bytes.size() >= kMagic.size() && std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) == 0,
      "{}.idx is no index of a binarized text (mmap format); make it with 'quantnoise prepare' or fairseq-preprocess",
      name_);
  QN_CHECK(bytes.size() >= kHeaderBytes, "{}.idx is truncated to {} bytes; {}", name_, bytes.size(), kRemedy);
  const auto version = load_at<uint64_t>(bytes, kMagic.size());
  QN_CHECK(version == kVersion, "{}.idx has format version {}, only version {} is known; {}", name_, version, kVersion,
           kRemedy);
  const int code = load_at<uint8_t>(bytes, kMagic.size() + 8);
  QN_CHECK(code != 6 && code != 7, "{}.idx describes floating-point values (type code {}), not token ids", name_, code);
  QN_CHECK((code >= 1 && code <= 5) || (code >= 8 && code <= 10), "{}.idx has the unknown type code {}; {}", name_,
           code, kRemedy);
  type_ = static_cast<TokenType>(code);
  const auto count = load_at<uint64_t>(bytes, kMagic.size() + 9);
  const size_t rest = bytes.size() - kHeaderBytes;
  QN_CHECK(!is_megatron_index(bytes, count),
           "{}.idx is an index of Megatron-LM, not of fairseq (it counts documents, too): prepare the text itself with "
           "'quantnoise prepare'",
           name_);
  QN_CHECK(rest % kBytesPerSentence == 0 && rest / kBytesPerSentence == count,
           "{}.idx should list {} sentences but has {} bytes, which is room for {}: it is truncated or damaged; {}",
           name_, count, bytes.size(), rest / kBytesPerSentence, kRemedy);
  sizes_.resize(count);
  if (count > 0) std::memcpy(sizes_.data(), bytes.data() + kHeaderBytes, count * sizeof(int32_t));
}

void TokenStream::check_data() {
  // Offsets that do not follow from the sizes mean a damaged index: every lookup below relies on them.
  const int64_t bytes_per_token = static_cast<int64_t>(token_bytes(type_));
  int64_t expected = 0;
  for (size_t i = 0; i < sizes_.size(); ++i) {
    const auto offset = load_at<int64_t>(index_.bytes(), kHeaderBytes + sizes_.size() * 4 + i * 8);
    QN_CHECK(sizes_[i] >= 0 && offset == expected,
             "{}.idx is damaged at sentence {} (size {}, byte offset {}, expected {}); prepare the data again", name_,
             i, sizes_[i], offset, expected);
    expected += sizes_[i] * bytes_per_token;
  }
  const auto actual = static_cast<int64_t>(data_.size());
  QN_CHECK(actual == expected,
           "{}.bin has {} bytes but its index describes {}: {}; prepare the data again (or copy "
           "both files again)",
           name_, actual, expected, actual < expected ? "it is truncated" : "the two files do not belong together");
  total_tokens_ = expected / bytes_per_token;
}

int64_t TokenStream::sentence_begin(int64_t sentence) const {
  QN_ASSERT(sentence >= 0 && sentence <= sentences(), "sentence {} of {}", sentence, sentences());
  if (sentence == sentences()) return total_tokens_;
  const size_t at = kHeaderBytes + sizes_.size() * sizeof(int32_t) + static_cast<size_t>(sentence) * sizeof(int64_t);
  return load_at<int64_t>(index_.bytes(), at) / static_cast<int64_t>(token_bytes(type_));
}

bool TokenStream::is_sentence_start(int64_t position) const {
  int64_t low = 0, high = sentences();
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (sentence_begin(middle) < position) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < sentences() && sentence_begin(low) == position;
}

void TokenStream::tokens(int64_t begin, int64_t count, int32_t* out) const {
  QN_ASSERT(begin >= 0 && count >= 0 && begin + count <= total_tokens_, "tokens [{}, {}) of {}", begin, begin + count,
            total_tokens_);
  with_token_type(type_, [&]<typename T>(T) {
    const auto* stored = reinterpret_cast<const T*>(data_.bytes().data()) + begin;
    std::transform(stored, stored + count, out, [](T id) { return static_cast<int32_t>(id); });
  });
}

int32_t TokenStream::token(int64_t position) const {
  int32_t id = 0;
  tokens(position, 1, &id);
  return id;
}

std::vector<int32_t> TokenStream::sentence(int64_t sentence) const {
  const int64_t begin = sentence_begin(sentence);
  std::vector<int32_t> ids(static_cast<size_t>(sizes_.at(static_cast<size_t>(sentence))));
  tokens(begin, std::ssize(ids), ids.data());
  return ids;
}

void TokenStream::check_vocabulary(int64_t vocabulary_size) const {
  with_token_type(type_, [&]<typename T>(T) {
    const auto* stored = reinterpret_cast<const T*>(data_.bytes().data());
    const auto bad = std::find_if(stored, stored + total_tokens_, [&](T id) {
      return std::cmp_less(id, 0) || std::cmp_greater_equal(id, vocabulary_size);
    });
    QN_CHECK(
        bad == stored + total_tokens_,
        "{}.bin holds token id {} at position {}, but the dictionary has {} entries; prepare the data with the same "
        "dict.txt",
        name_, static_cast<int64_t>(*bad), bad - stored, vocabulary_size);
  });
}

uint64_t TokenStream::verify(const Dictionary& dictionary) const {
  const uint64_t parts[] = {hash_bytes(data_.bytes().data(), data_.size()),
                            hash_bytes(index_.bytes().data(), index_.size())};
  check_checksum(dictionary, parts[0], parts[1]);
  return hash_bytes(parts, sizeof parts);
}

void TokenStream::check_checksum(const Dictionary& dictionary, uint64_t bin, uint64_t idx) const {
  const std::optional<SplitChecksum> sum = read_split_checksum(name_);
  if (!sum) {
    check_vocabulary(dictionary.size());
    warn_of_padding();
    return;
  }
  QN_CHECK(
      sum->dictionary == dictionary.hash(),
      "{} was prepared with another dictionary than the dict.txt beside it (hashes {} and {}), so its ids mean other "
      "words: prepare the text of this split again, with --dict and this dict.txt",
      name_, hex64(sum->dictionary), hex64(dictionary.hash()));
  const char* altered = sum->bin != bin ? "bin" : sum->idx != idx ? "idx" : nullptr;
  QN_CHECK(
      altered == nullptr,
      "{}.{} is not as it was prepared (checksum in {}.sum): it is damaged or was replaced; prepare the data again, "
      "or remove {}.sum if it was replaced on purpose",
      name_, altered, name_, name_);
}

/// Data of fairseq may have words spelled <pad>.
void TokenStream::warn_of_padding() const {
  with_token_type(type_, [&]<typename T>(T) {
    const auto* stored = reinterpret_cast<const T*>(data_.bytes().data());
    const auto found = std::count(stored, stored + total_tokens_, static_cast<T>(kPadId));
    if (found > 0)
      spdlog::warn("{}: {} tokens are <pad>: like fairseq, neither training nor evaluation scores or counts them",
                   name_, found);
  });
}

std::vector<int64_t> TokenStream::counts(int64_t vocabulary_size) const {
  std::vector<int64_t> counts(static_cast<size_t>(vocabulary_size), 0);
  with_token_type(type_, [&]<typename T>(T) {
    const auto* stored = reinterpret_cast<const T*>(data_.bytes().data());
    for (int64_t i = 0; i < total_tokens_; ++i) ++counts[static_cast<size_t>(stored[i])];
  });
  return counts;
}

TokenStreamWriter::TokenStreamWriter(const std::filesystem::path& file, TokenType type)
    : file_(file, O_WRONLY, "write"), type_(type) {
  buffer_.reserve(kBufferedTokens);
}

void TokenStreamWriter::end_sentence() {
  const int64_t size = tokens() - sentence_begin_;
  QN_CHECK(size <= std::numeric_limits<int32_t>::max(), "line {} has {} tokens, the limit is 2^31 - 1; split it",
           sentences() + 1, size);
  sizes_.push_back(static_cast<int32_t>(size));
  sentence_begin_ = tokens();
}

void TokenStreamWriter::flush() {
  with_token_type(type_, [&]<typename T>(T) { write_as<T>(); });
  written_ += static_cast<int64_t>(buffer_.size());
  buffer_.clear();
}

template <typename T>
void TokenStreamWriter::write_as() {
  const std::vector<T> raw(buffer_.begin(), buffer_.end());
  file_.write(bytes_, std::as_bytes(std::span(raw)));
  bytes_ += raw.size() * sizeof(T);
}

void write_token_stream(const std::filesystem::path& prefix, int64_t vocabulary_size,
                        const std::function<void(TokenStreamWriter&)>& fill) {
  const TokenType type = token_type_for(vocabulary_size);
  std::string index(kMagic);
  append_raw(index, kVersion);
  append_raw(index, type);
  atomic_write(prefix.string() + ".bin", [&](const std::filesystem::path& temporary) {
    TokenStreamWriter writer(temporary, type);
    fill(writer);
    writer.flush();
    append_raw(index, static_cast<uint64_t>(writer.sentences()));
    for (const int32_t size : writer.sentence_sizes()) append_raw(index, size);
    int64_t offset = 0;
    for (const int32_t size : writer.sentence_sizes()) {
      append_raw(index, offset);
      offset += size * static_cast<int64_t>(token_bytes(type));
    }
  });
  atomic_write_text(prefix.string() + ".idx", index);
}

}  // namespace qn
