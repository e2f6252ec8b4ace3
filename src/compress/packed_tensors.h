// The tensors of a packed file, one weight or one parameter at a time (docs/formats.md, section 1).
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "nn/weight.h"
#include "quant/quantizer.h"

namespace qn {

inline constexpr const char* kVersion1 = "1";  ///< of the format, in which names of tensors tell the quantizers
inline constexpr const char* kQuantizedKey = "quantized";
inline constexpr const char* kCodes = "codes";

/// What the metadata says of a quantized weight.
struct PackedWeight {
  std::shared_ptr<const Quantizer> quantizer;
  int64_t rows = 0, cols = 0;
};
using PackedWeights = std::map<std::string, PackedWeight>;  ///< by the weight's name

/// Collects what a file will hold; what is planned has a place in the header and no values.
class PackedTensors {
 public:
  PackedTensors();
  ~PackedTensors();
  PackedTensors(const PackedTensors&) = delete;
  PackedTensors& operator=(const PackedTensors&) = delete;

  void add_values(const std::string& name, const Shape& shape, std::span<const float> values, ValueStorage storage);
  void plan_values(const std::string& name, const Shape& shape, ValueStorage storage);
  /// A tensor of whatever type, as it is.
  void add_raw(const StoredTensor& tensor) { writer_.add(tensor.name, tensor.type, tensor.shape, tensor.bytes); }
  void plan_raw(const StoredTensor& tensor) { writer_.add_planned(tensor.name, tensor.type, tensor.shape); }
  void add_quantized(const std::string& weight, const QuantizedTensor& tensor, ValueStorage side);
  void plan_quantized(const std::string& weight, const PackedWeight& packed, ValueStorage side);
  void set_metadata(const std::string& key, const std::string& value) { writer_.set_metadata(key, value); }

  uint64_t header_bytes();
  /// Returns the file's size.
  uint64_t write(const std::filesystem::path& path);

 private:
  void describe(const std::string& weight, const PackedWeight& packed);
  void close_table();

  SafetensorsWriter writer_;
  std::unique_ptr<nlohmann::json> table_;
};

/// The quantized weights of a file. Without `weights` (version 1 only) sizes that the file does not tell are those of a
/// single row.
PackedWeights packed_weights(const SafetensorsReader& file, const WeightSet* weights);
QuantizedTensor read_quantized(const SafetensorsReader& file, const std::string& weight, const PackedWeight& packed);
/// The same without codes.
QuantizedTensor read_side_values(const SafetensorsReader& file, const std::string& weight, const PackedWeight& packed);
/// Every tensor that a quantized weight may have in a file.
std::vector<std::string> tensor_names(const std::string& weight, const PackedWeight& packed);

/// Values of any storage.
std::vector<float> read_values(const SafetensorsReader& file, const std::string& name);
ValueStorage stored_as(StoredType type);

}  // namespace qn
