// Tensors as large as the parameters of a store, beside them: optimizer state, averages.
#pragma once

#include <string>

#include "nn/parameters.h"
#include "nn/state_dict.h"

namespace qn {

/// The part of a flat state tensor that belongs to a parameter.
Tensor state_slice(const OwnedTensor& flat, const Parameter& p);

/// One entry for each parameter, prefix and name; the second throws qn::Error when one has another shape.
void save_slices(const ParameterStore& store, const OwnedTensor& flat, const std::string& prefix, StateDict& state);
void load_slices(const ParameterStore& store, const OwnedTensor& flat, const std::string& prefix,
                 const StateDict& state);

}  // namespace qn
