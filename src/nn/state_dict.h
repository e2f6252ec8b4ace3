// Everything a run needs to go on, by name and in memory: what a checkpoint holds.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "nn/module.h"

namespace qn {

/// A host tensor with its own memory and the same elements.
OwnedTensor copy_of(const Tensor& tensor);

struct StateDict {
  std::map<std::string, OwnedTensor> tensors;
  std::map<std::string, std::string> texts;  ///< any bytes
  std::map<std::string, int64_t> ints;
  std::map<std::string, double> floats;

  /// A large tensor of the host's memory that somebody copies later.
  struct LateCopy {
    Tensor to, from;
  };
  /// Where it is not null, keep() leaves copying to whoever has set it.
  std::vector<LateCopy>* late = nullptr;
  /// The entry NAME becomes a copy of a backend's tensor.
  void keep(const std::string& name, const Kernels& kernels, const Tensor& from);

  /// The entry of that name. Throws qn::Error naming the nearest entry when there is none.
  const Tensor& tensor(const std::string& name) const;
  const std::string& text(const std::string& name) const;
  int64_t integer(const std::string& name) const;
  double real(const std::string& name) const;
};

/// What the name of a parameter follows in a StateDict.
inline constexpr const char* kParameters = "parameters/";

/// Entries "parameters/NAME" and "buffers/NAME" from and to the tensors of an allocated module. Loading throws
/// qn::Error naming the tensor whose entry is missing, of another shape, or not finite.
void save_module(const Module& module, StateDict& state);
void load_module(Module& module, const StateDict& state);

}  // namespace qn
