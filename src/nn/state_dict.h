// Everything a run needs to go on, by name and in memory: what a checkpoint holds.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "core/tensor.h"
#include "nn/buffers.h"
#include "nn/parameters.h"

namespace qn {

/// A host tensor with its own memory and the same elements.
OwnedTensor copy_of(const Tensor& tensor);

struct StateDict {
  std::map<std::string, OwnedTensor> tensors;
  std::map<std::string, std::string> texts;  ///< any bytes
  std::map<std::string, int64_t> ints;
  std::map<std::string, double> floats;

  /// The entry of that name. Throws qn::Error naming the nearest entry when there is none.
  const Tensor& tensor(const std::string& name) const;
  const std::string& text(const std::string& name) const;
  int64_t integer(const std::string& name) const;
  double real(const std::string& name) const;
};

/// Entries "parameters/NAME" from and to the parameters of a laid out store. Loading throws qn::Error naming the
/// parameter whose entry is missing or of another shape.
void save_parameters(const ParameterStore& store, StateDict& state);
void load_parameters(ParameterStore& store, const StateDict& state);

/// Entries "buffers/NAME", alike; buffers are in the memory of `kernels`.
void save_buffers(const BufferStore& store, const Kernels& kernels, StateDict& state);
void load_buffers(BufferStore& store, const Kernels& kernels, const StateDict& state);

}  // namespace qn
