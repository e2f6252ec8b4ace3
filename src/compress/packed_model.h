// The packed model: one safetensors file with everything that the forward pass of a module needs (docs/formats.md). Its
// size on disk is the size that is reported. What network it is, the caller says in the metadata.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>

#include "compress/plan.h"
#include "compress/size_report.h"
#include "core/safetensors.h"
#include "nn/module.h"
#include "quant/product_quantizer.h"

namespace qn {

/// The caller's own entries. Reserved: "format", "version" and "quantized". "parameters", if there, is what the
/// original dense model had, each tied tensor once.
using PackedMetadata = std::map<std::string, std::string>;

/// Rounds everything to what the file will hold, so that the module in memory and the file compute the same; where
/// norms are to be folded, they are. `codes_rounded` is called in between, when what belongs to codes is as the file
/// will have it and the rest as it was: the time to measure norms. Throws qn::Error as check_storable() does.
void round_to_storage(Module& module, const PackedStorage& storage, const std::function<void()>& codes_rounded = {});

/// Writes the module (already rounded or not; with norms to be folded: rounded) atomically, and `raw`, tensors that are
/// no part of it, as they are. Returns the file's size in bytes. Throws qn::Error as check_storable() does, before
/// there is a file.
uint64_t write_packed(const std::filesystem::path& path, const Module& module, const PackedMetadata& metadata,
                      const PackedStorage& storage, std::span<const StoredTensor> raw = {});

/// Throws qn::Error unless the file is a packed model of a version that this program reads, and every byte is as it was
/// written (files of versions 1 and 2 have nothing to tell that by).
void check_packed_format(const SafetensorsReader& file, const std::string& path);

/// Gives a laid out, dense module the file's structure (ties cut, codes in place of dense weights) and values. Throws
/// qn::Error naming file and tensor when they do not fit.
void load_packed(Module& module, const SafetensorsReader& file, const std::string& path, CentroidGradient gradient);
/// The same for a module that will only be evaluated with `kernels`, and need not be laid out: its memory is that of
/// the file and little more. Without kernels: where the module is.
void load_packed(Module& module, const SafetensorsReader& file, const std::string& path, const Kernels& kernels);
void load_packed(Module& module, const std::filesystem::path& path);

/// Sizes by tensor; the total is the file's size.
SizeReport packed_sizes(const SafetensorsReader& file);
/// What the packed file of a module quantized by `plan` will weigh, header included, to the byte. The module needs
/// shapes only, and is dense.
SizeReport predict_packed_sizes(const Module& module, const QuantizationPlan& plan, const PackedMetadata& metadata,
                                std::span<const StoredTensor> raw = {});

/// Throws qn::Error unless the file has every tensor of a laid out, dense module in its shape: to be asked before the
/// module gets memory.
void check_fits(const Module& module, const SafetensorsReader& file);

/// Tensors that begin so are of no module: they are a model's vocabulary, which whoever packs it hands over as raw
/// tensors. Files of other programs' weights have none.
inline constexpr const char* kVocabularyPrefix = "vocabulary.";
bool is_vocabulary(const std::string& tensor, const std::map<std::string, std::string>& metadata);

/// Of a module, as far as files may claim.
inline constexpr int64_t kMostValues = int64_t{1} << 48;
/// Metadata that must be a whole number out of [least, most]. Throws qn::Error naming file and key.
int64_t metadata_integer(const SafetensorsReader& file, const std::string& key, int64_t least, int64_t most);

}  // namespace qn
