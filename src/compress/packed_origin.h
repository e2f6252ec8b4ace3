// What a packed file knows of the file of another program that it was made from (docs/formats.md, section 1).
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "compress/packed_tensors.h"
#include "core/safetensors.h"

namespace qn {

inline constexpr const char* kOriginKey = "origin";

/// A quantized weight as it was.
struct OriginWeight {
  std::vector<std::string> names;  ///< at least one; several had the same values
  StoredType type = StoredType::f32;
  std::vector<int64_t> shape;
};

struct PackedOrigin {
  std::map<std::string, std::string> metadata;
  std::map<std::string, OriginWeight> weights;  ///< by the name in the packed file
  uint64_t bytes = 0;                           ///< of the original file or files
};

std::string origin_to_text(const PackedOrigin& origin);
/// Nothing where the file has none: it is of a model of this project. Throws qn::Error when it does not fit the file's
/// quantized weights.
std::optional<PackedOrigin> packed_origin(const SafetensorsReader& file, const std::string& path);

}  // namespace qn
