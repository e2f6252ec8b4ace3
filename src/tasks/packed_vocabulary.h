// The vocabulary in a packed file: a tensor of bytes per part, compressed (docs/formats.md, section 1).
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "data/vocabulary.h"

namespace qn {

/// The parts as they are in a file.
using VocabularyStreams = std::map<std::string, std::vector<std::byte>>;

/// Those of a packed file; none where it carries no vocabulary. Throws qn::Error when a tensor is no stream of bytes.
VocabularyStreams vocabulary_streams(const SafetensorsReader& file);
/// Throws qn::Error beginning with `where`, the file's name, when they are damaged or too large.
VocabularyParts decompress_parts(const VocabularyStreams& streams, const std::string& where);

/// "1,004 words", "7,816 words, a tokenizer of 8,000"; "" where a file carries none. Throws as above and
/// vocabulary_of() do.
std::string describe_vocabulary(const SafetensorsReader& file);

/// Parts on their way into a file.
class PackedVocabulary {
 public:
  explicit PackedVocabulary(const VocabularyParts& parts);
  PackedVocabulary(PackedVocabulary&&) = default;
  PackedVocabulary& operator=(PackedVocabulary&&) = default;

  /// What write_packed() and predict_packed_sizes() take; they live as long as the object.
  const std::vector<StoredTensor>& tensors() const { return tensors_; }

 private:
  VocabularyStreams streams_;
  std::vector<StoredTensor> tensors_;
};

}  // namespace qn
