#include "compress/export_plain.h"

#include <set>

#include "compress/packed_model.h"
#include "compress/packed_origin.h"
#include "core/error.h"
#include "core/stored_values.h"

namespace qn {
namespace {

StoredType target_type(ExportType type, StoredType original) {
  switch (type) {
    case ExportType::f32:
      return StoredType::f32;
    case ExportType::f16:
      return StoredType::f16;
    case ExportType::bf16:
      return StoredType::bf16;
    case ExportType::original:
      return original;
  }
  QN_ASSERT(false, "unknown type");
}

}  // namespace

uint64_t export_plain(const SafetensorsReader& file, const std::string& path, const std::filesystem::path& out,
                      ExportType type, const WeightSet* weights) {
  check_packed_format(file, path);
  const std::optional<PackedOrigin> origin = packed_origin(file, path);
  SafetensorsWriter writer;
  std::set<std::string> done;
  for (const auto& [name, packed] : packed_weights(file, weights)) {
    const QuantizedTensor tensor = read_quantized(file, name, packed);
    check_tensor(tensor, name);
    std::vector<float> values(static_cast<size_t>(packed.rows * packed.cols));
    packed.quantizer->decode(tensor, values.data());
    const OriginWeight weight =
        origin ? origin->weights.at(name) : OriginWeight{{name}, StoredType::f32, {packed.rows, packed.cols}};
    const StoredType target = target_type(type, weight.type);
    for (const std::string& own : weight.names)
      writer.add(own, target, weight.shape, stored_bytes_of(values, target, own));
    for (const std::string& part : tensor_names(name, packed)) done.insert(part);
  }
  for (const StoredTensor& tensor : file.tensors()) {
    if (done.contains(tensor.name) || is_vocabulary(tensor.name, file.metadata())) continue;
    const StoredType target = target_type(type, origin ? tensor.type : StoredType::f32);
    if (!is_weight_type(tensor.type) || tensor.type == target)
      writer.add(tensor.name, tensor.type, tensor.shape, tensor.bytes);
    else
      writer.add(tensor.name, target, tensor.shape, stored_bytes_of(floats_of(tensor), target, tensor.name));
  }
  if (origin)
    for (const auto& [key, value] : origin->metadata) writer.set_metadata(key, value);
  writer.write(out);
  return writer.file_size();
}

}  // namespace qn
