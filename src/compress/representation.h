// Weights represented by codes: the change of representation, and reading back what a weight is represented by.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "nn/module.h"
#include "quant/product_quantizer.h"
#include "quant/quantizer.h"

namespace qn {

/// Name of what belongs to a weight: "x.weight" and "centroids" give "x.centroids".
std::string part_name(const std::string& weight_name, const std::string& role);

/// The codes that represent a weight, with the current values of what is trained; nothing for a dense weight.
std::optional<QuantizedTensor> quantized_tensor(const Weight& weight, const ParameterStore& store);

/// Represents weights by codes from now on: dense parameters leave the store, what the quantizer trains enters. The
/// type of the quantizer decides (the table in representation.cpp): product quantization trains its centroids; values
/// of other types are decoded once and stay.
class RepresentationSwap {
 public:
  RepresentationSwap(Module& module, CentroidGradient gradient) : module_(module), gradient_(gradient) {}
  /// Takes a tensor from anywhere. Throws qn::Error naming the weight when it is unsound or of another size.
  void replace(Weight& weight, QuantizedTensor tensor);
  /// Lays the store out anew and writes the values of trained parts; between replace() and this they are kept here.
  void finish();

 private:
  Module& module_;
  CentroidGradient gradient_;
  struct Pending {
    Parameter* parameter;
    std::vector<float> values;
  };
  std::vector<Pending> pending_;
};

/// Rounds the values beside the codes that are not trained to what files hold; see SideLayout::roundable. Trained ones
/// are parameters.
void round_side_values(Weight& weight, ValueStorage storage);

}  // namespace qn
