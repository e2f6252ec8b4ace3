// Weights represented by codes: the change of representation, and reading back what a weight is represented by.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "nn/module.h"
#include "ops/int8_weight.h"
#include "quant/product_quantizer.h"
#include "quant/quantizer.h"

namespace qn {

/// Name of what belongs to a weight: "x.weight" and "centroids" give "x.centroids".
std::string part_name(const std::string& weight_name, const std::string& role);

/// The codes that represent a weight, with the current values of what is trained; nothing for a dense weight.
std::optional<QuantizedTensor> quantized_tensor(const Weight& weight, const ParameterStore& store);

/// How weights that are represented by codes are trained.
struct CodeTraining {
  CentroidGradient gradient = CentroidGradient::sum;
  bool int8_centroids = false;  ///< passes see centroids as files of int8 hold them; the gradient goes straight through
  /// Beside its codes a weight keeps latent values [rows, cols] (a part of the role kLatent): at first the dense ones,
  /// then trained by the gradient of the decoded ones. They say where blocks are to move; see MovableCodes.
  bool latent = false;
};

inline constexpr const char* kLatent = "latent";

/// What a representation whose codes may change while it is trained can do beside.
class MovableCodes {
 public:
  virtual ~MovableCodes() = default;
  /// Moves blocks to the centroid nearest to their latent values, at most `share` of all blocks: those that come
  /// nearest by it (by squared distance; of equal ones the first). Returns how many. The same on every rank.
  virtual int64_t move_codes(const Kernels& kernels, double share) = 0;
  virtual void set_codes(const Kernels& kernels, std::span<const uint16_t> codes) = 0;
};

/// Null where codes stay as they are.
MovableCodes* movable_codes(Weight& weight);

/// Represents weights by codes from now on: dense parameters leave the store, what the quantizer trains enters. The
/// type of the quantizer decides (the table in representation.cpp): product quantization trains its centroids; values
/// of other types are decoded once and stay.
class RepresentationSwap {
 public:
  RepresentationSwap(Module& module, const CodeTraining& training) : module_(module), training_(training) {}
  RepresentationSwap(Module& module, CentroidGradient gradient) : module_(module), training_{.gradient = gradient} {}
  /// Takes a tensor from anywhere. Throws qn::Error naming the weight when it is unsound or of another size.
  void replace(Weight& weight, QuantizedTensor tensor);
  /// Lays the store out anew and writes the values of trained parts; between replace() and this they are kept here.
  void finish();

 private:
  Module& module_;
  CodeTraining training_;
  struct Pending {
    Parameter* parameter;
    std::vector<float> values;
  };
  std::vector<Pending> pending_;
};

/// Whether inputs on `grid` (null: not quantized) and a weight of codes of up to 8 bits with so many columns are
/// multiplied in integers, and the weight laid out for it.
bool int8_product_serves(const Tape& tape, const ActivationGrid* grid, int64_t cols);
Int8Weight int8_weight(const Kernels& kernels, const QuantizedTensor& tensor);

/// Rounds the values beside the codes that are not trained to what files hold; see SideLayout::roundable. Trained ones
/// are parameters.
void round_side_values(Weight& weight, ValueStorage storage);

}  // namespace qn
