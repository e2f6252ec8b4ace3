// Packed files back to plain ones that any program reads.
#pragma once

#include <filesystem>
#include <string>

#include "compress/packed_tensors.h"

namespace qn {

/// What floating-point tensors become; `original`: what they were in the file that was packed, otherwise F32.
enum class ExportType : uint8_t { f32, f16, bf16, original };
template <>
struct EnumNames<ExportType> {
  static constexpr EnumName<ExportType> kAll[] = {{ExportType::f32, "f32"},
                                                  {ExportType::f16, "f16"},
                                                  {ExportType::bf16, "bf16"},
                                                  {ExportType::original, "original"}};
};

/// Decodes a packed file of any origin to a safetensors file with the original names and shapes; other types than F32,
/// F16 and BF16 are copied. Files of language models have fairseq's names, each tied weight once. `weights` says the
/// sizes that files of version 1 do not tell. Returns the bytes written. Throws qn::Error when the file is no packed
/// one or a value does not fit the type.
uint64_t export_plain(const SafetensorsReader& file, const std::string& path, const std::filesystem::path& out,
                      ExportType type, const WeightSet* weights = nullptr);

}  // namespace qn
