// Weights of a model represented by product-quantization codes: the change of representation, and back-propagation to
// the centroids.
#pragma once

#include <string>
#include <vector>

#include "nn/module.h"
#include "ops/host_access.h"
#include "quant/product_quantizer.h"

namespace qn {

/// A weight's values from centroids (trainable) and codes (frozen).
class PqRepresentation : public Representation {
 public:
  /// `centroids` is [K, d] and already holds the values once the store is allocated.
  PqRepresentation(Parameter* centroids, PqTable table, CentroidGradient gradient);
  Var value(Tape& tape) override;
  const PqTable& table() const { return table_; }  ///< codes and counts; centroids are the parameter's
  /// The table with the current centroids (float) of its parameter, which is in `store`.
  PqTable current_table(const ParameterStore& store) const;
  const Parameter* centroids() const { return centroids_; }

 private:
  Parameter* centroids_;
  PqTable table_;
  CentroidGradient gradient_;
  DeviceCopy<uint16_t> codes_;
  DeviceCopy<int64_t> counts_;
};

/// Name of the centroid parameter of a weight: "x.weight" -> "x.centroids".
std::string centroid_name(const std::string& weight_name);

/// Represents `weight` by `table` from now on: its dense parameter leaves the store, its centroids enter. The caller
/// calls store.allocate() when all weights of a stage are done (values of `table` are kept until then).
class RepresentationSwap {
 public:
  RepresentationSwap(Module& model, CentroidGradient gradient) : model_(model), gradient_(gradient) {}
  void replace(Weight& weight, PqTable table);
  /// Lays the store out anew and writes the centroids' values.
  void finish();

 private:
  Module& model_;
  CentroidGradient gradient_;
  struct Pending {
    Parameter* parameter;
    std::vector<float> values;
  };
  std::vector<Pending> pending_;
};

/// The PqRepresentation of a weight, or nullptr when it is not represented by codes.
const PqRepresentation* pq_representation(const Weight& weight);

}  // namespace qn
