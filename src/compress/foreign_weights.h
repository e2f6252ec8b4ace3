// Quantization without data of the weights in safetensors files that other programs made.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "compress/foreign_rules.h"
#include "compress/packed_model.h"
#include "compress/packed_origin.h"
#include "core/tensor_files.h"
#include "nn/module.h"

namespace qn {

struct ForeignOptions {
  int64_t kmeans_iterations = 15;
  uint64_t seed = 1;
  ValueStorage centroids = ValueStorage::f16;
};

/// Tensors of F32, F16 and BF16 with at least two axes are matrices [first axis, all others]; rules choose among them.
/// Four axes make a Conv2d; a last module named like "embed...", "wte" or "wpe" makes an Embedding; all others are
/// Linear. Matrices of equal type, shape and values are one weight with several names, and stored once. All other
/// tensors are stored as they are.
class ForeignWeights {
 public:
  /// `files` must outlive this. Throws qn::Error naming tensor and file: as plan_foreign() does; values to quantize
  /// that are not finite, or beyond what centroids are stored as; a file that is packed already.
  ForeignWeights(const TensorFiles& files, const ForeignRules& rules, const ForeignOptions& options);

  /// Of the weights to quantize, by their names in the packed file: a name that does not end in ".weight" gets that
  /// ending, and one whose codes would meet another tensor of that name is changed.
  const QuantizationPlan& plan() const { return plan_; }
  /// The packed file to the byte.
  SizeReport predicted_sizes() const;
  /// Quantizes, over all ranks; rank 0 writes the file. Once per object, in the memory of `kernels`.
  void quantize(const std::filesystem::path& out, Communicator& comm, const Kernels& kernels);

 private:
  void add(WeightPlan planned, const WeightInfo& info, std::set<std::string>& taken);
  void check_values() const;
  void load_values(const Kernels& kernels);
  PackedMetadata metadata() const;

  const TensorFiles& files_;
  ForeignOptions options_;
  QuantizationPlan plan_;
  PackedOrigin origin_;
  Module module_;
  std::vector<StoredTensor> raw_;  // what is not quantized
};

/// The quantized weights of a packed file as a module. Throws qn::Error when they are unsound.
std::unique_ptr<Module> load_foreign(const SafetensorsReader& file, const std::string& path);

/// Norm of (decoded - original) over norm of original of a file's quantized weights, by the first original name.
/// `files` is what it was made from.
std::map<std::string, double> relative_errors(const SafetensorsReader& file, const std::string& path,
                                              const TensorFiles& files);

}  // namespace qn
