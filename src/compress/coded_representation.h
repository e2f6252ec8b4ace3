// Weights that stay codes in memory, for modules that will only be evaluated.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "compress/packed_tensors.h"
#include "nn/module.h"
#include "ops/code_weight.h"
#include "ops/int8_weight.h"

namespace qn {

/// Multiplies and looks up straight from codes where the tape's kernels can; elsewhere, and where the matrix itself is
/// asked for, decodes in every pass. Takes no part in training.
class CodedRepresentation : public Representation {
 public:
  /// `kernels` are those that the weight was made with.
  CodedRepresentation(CodeWeight weight, std::shared_ptr<const Quantizer> quantizer, const Kernels& kernels)
      : weight_(std::move(weight)), quantizer_(std::move(quantizer)), kernels_(kernels) {}

  Var value(Tape& tape) override;
  bool multiply(Tape& tape, const Tensor& y, int64_t column, const Tensor& x,
                const ActivationQuantizer* input) override;
  bool multiply_transposed(Tape& tape, const Tensor& y, const Tensor& x) override;
  bool lookup(Tape& tape, const Tensor& y, const int32_t* ids, double scale) override;
  /// Unpacked when it is asked for the first time.
  const QuantizedTensor* quantized() const override;

  const CodeWeight& weight() const { return weight_; }
  const Kernels& kernels() const { return kernels_; }

 private:
  bool serves(const Tape& tape) const;
  bool multiply_int8(Tape& tape, const Tensor& y, int64_t column, const Tensor& x, const ActivationQuantizer* input);
  QuantizedTensor unpacked() const;

  CodeWeight weight_;
  std::shared_ptr<const Quantizer> quantizer_;
  const Kernels& kernels_;
  std::optional<Int8Weight> int8_;  ///< of codes of up to 8 bits whose inputs are quantized, too
  mutable std::optional<QuantizedTensor> quantized_;
};

/// The codes of a weight in a packed file; null where its quantizer is of a type that cannot run from codes. Throws
/// qn::Error naming file and weight when codes or values are unsound.
std::unique_ptr<CodedRepresentation> read_coded(const SafetensorsReader& file, const std::string& weight,
                                                const PackedWeight& packed, const Kernels& kernels);

/// For people, of a module whose weights stay codes; empty where none does: how many weights there are, their memory,
/// and how products of one token and of many are computed.
std::string describe_coded(const Module& module);

}  // namespace qn
