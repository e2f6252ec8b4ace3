#include "data/sentence_lines.h"

#include "core/error.h"
#include "core/text.h"

namespace qn {

namespace fs = std::filesystem;

fs::path sentence_dictionary(const fs::path& folder) {
  QN_CHECK_USAGE(fs::is_directory(folder),
                 "{}: there is no such folder of sentences; make it with 'quantnoise prepare'", folder.string());
  for (const fs::path& path : {folder / "dict.txt", folder / "input0" / "dict.txt"})
    if (fs::exists(path)) return path;
  throw UsageError(folder.string() +
                   " has neither dict.txt nor input0/dict.txt: make it of lines of text with 'quantnoise prepare', or "
                   "of a table with 'quantnoise prepare --table'");
}

SentenceLines::SentenceLines(const fs::path& folder, const Dictionary& dictionary, const std::string& split)
    : name_((folder / split).string()) {
  if (fs::exists(folder / "dict.txt")) {
    streams_.push_back(TokenStream::open(folder, split));
  } else {
    for (const char* input : {"input0", "input1"})
      if (fs::is_directory(folder / input)) streams_.push_back(TokenStream::open(folder / input, split));
  }
  std::vector<uint64_t> parts;
  for (const TokenStream& stream : streams_) parts.push_back(stream.verify(dictionary));
  checksum_ = hash_bytes(parts.data(), parts.size() * sizeof(uint64_t));
}

int64_t SentenceLines::size() const {
  int64_t size = 0;
  for (const TokenStream& stream : streams_) size += stream.sentences();
  return size;
}

std::pair<const TokenStream*, int64_t> SentenceLines::find(int64_t i) const {
  size_t stream = 0;
  for (; i >= streams_[stream].sentences(); ++stream) i -= streams_[stream].sentences();
  return {&streams_[stream], i};
}

std::vector<int32_t> SentenceLines::sentence(int64_t i) const {
  const auto [stream, number] = find(i);
  return stream->sentence(number);
}

int32_t SentenceLines::length(int64_t i) const {
  const auto [stream, number] = find(i);
  return stream->sentence_sizes()[static_cast<size_t>(number)];
}

}  // namespace qn
