// The packed model: one safetensors file with everything needed to run it (docs/formats.md). Its size on disk is the
// size that is reported.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "compress/plan.h"
#include "compress/size_report.h"
#include "core/safetensors.h"
#include "models/language_model.h"
#include "quant/product_quantizer.h"

namespace qn {

/// What the metadata says beside the tensors.
struct PackedInfo {
  ModelConfig model;
  int64_t vocabulary = 0;
  std::string dictionary_hash;
  int64_t tokens_per_sample = 0;  ///< of training: the default for eval
  int64_t parameters = 0;         ///< of the original dense model, each tied tensor once
  CentroidGradient centroid_gradient = CentroidGradient::sum;
};

struct PackedStorage {
  ValueStorage centroids = ValueStorage::f16;
  ValueStorage dense = ValueStorage::f16;
};

/// Rounds every parameter to what the file will hold, so that the model in memory and the file compute the same.
void round_to_storage(Module& model, const PackedStorage& storage);

/// Writes the model (already rounded or not) atomically. Returns the file's size in bytes.
uint64_t write_packed_model(const std::filesystem::path& path, const Module& model, const PackedInfo& info,
                            const PackedStorage& storage);

struct PackedModel {
  PackedInfo info;
  std::unique_ptr<LanguageModel> model;  ///< float32, ready to evaluate
};

/// A model for use with `kernels`. Throws qn::Error naming file and tensor when it is no packed model or does not fit
/// together.
PackedModel load_packed_model(const std::filesystem::path& path, const Kernels& kernels = cpu_kernels());

/// Sizes by tensor; the total is the file's size.
SizeReport packed_sizes(const SafetensorsReader& file);

/// What the packed file of a model quantized by `plan` will weigh, header included, to the byte. The model needs shapes
/// only. `dense_softmax`: ties of quantized weights are cut.
SizeReport predict_packed_sizes(const Module& model, const QuantizePlan& plan, bool dense_softmax,
                                const PackedInfo& info, const PackedStorage& storage);

}  // namespace qn
