#include "tasks/packed_vocabulary.h"

#include "compress/packed_model.h"
#include "core/text.h"
#include "core/zlib_stream.h"

namespace qn {

VocabularyStreams vocabulary_streams(const SafetensorsReader& file) {
  VocabularyStreams streams;
  for (const StoredTensor& tensor : file.tensors()) {
    if (!is_vocabulary(tensor.name, file.metadata())) continue;
    QN_CHECK(tensor.type == StoredType::u8 && tensor.shape.size() == 1,
             "'{}': tensor {} must be a stream of bytes (U8 with one axis)", file.path(), tensor.name);
    streams[tensor.name.substr(std::string_view(kVocabularyPrefix).size())] = {tensor.bytes.begin(),
                                                                               tensor.bytes.end()};
  }
  return streams;
}

VocabularyParts decompress_parts(const VocabularyStreams& streams, const std::string& where) {
  VocabularyParts parts;
  size_t left = kMostVocabularyBytes;
  for (const auto& [name, stream] : streams) {
    parts[name] = decompress_bytes(stream, left, fmt::format("'{}': tensor {}{}", where, kVocabularyPrefix, name));
    left -= parts[name].size();
  }
  return parts;
}

std::string describe_vocabulary(const SafetensorsReader& file) {
  const VocabularyStreams streams = vocabulary_streams(file);
  if (streams.empty()) return {};
  const VocabularyParts parts = decompress_parts(streams, file.path());
  const Vocabulary vocabulary = vocabulary_of(parts, file.path());
  std::string text = group_digits(vocabulary.dictionary.size()) + " words";
  if (vocabulary.source) text += fmt::format(", {} of the source language", group_digits(vocabulary.source->size()));
  if (vocabulary.tokenizer)
    text += fmt::format(", a tokenizer of {}", group_digits(std::ssize(vocabulary.tokenizer->words())));
  return text;
}

PackedVocabulary::PackedVocabulary(const VocabularyParts& parts) {
  for (const auto& [name, text] : parts) {
    const std::vector<std::byte>& stream = streams_[name] = compress_bytes(text);
    tensors_.push_back({kVocabularyPrefix + name, StoredType::u8, {std::ssize(stream)}, stream});
  }
}

}  // namespace qn
