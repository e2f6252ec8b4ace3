// Optimizer options as optimizers.h5 and efficientnet.h5 store them.
#pragma once

#include <string>

#include "core/hdf5_file.h"
#include "train/optimizer.h"

namespace qn::test {

inline OptimizerConfig golden_optimizer_config(const Hdf5File& file, const std::string& group) {
  OptimizerConfig c;
  c.name = value_named<OptimizerKind>(file.string_attribute(group, "optimizer"), "optimizer");
  for (const auto& [name, value] : {std::pair{"momentum", &c.momentum},
                                    {"beta1", &c.beta1},
                                    {"beta2", &c.beta2},
                                    {"alpha", &c.alpha},
                                    {"eps", &c.eps},
                                    {"dampening", &c.dampening},
                                    {"weight_decay", &c.weight_decay},
                                    {"clip_norm", &c.clip_norm}})
    if (file.has_attribute(group, name)) *value = file.float_attribute(group, name);
  for (const auto& [name, value] : {std::pair{"nesterov", &c.nesterov},
                                    {"lr_in_momentum", &c.lr_in_momentum},
                                    {"decoupled_decay", &c.decoupled_decay}})
    if (file.has_attribute(group, name)) *value = file.int_attribute(group, name) != 0;
  return c;
}

/// The rate that stands in for the one before the first step.
inline double golden_initial_lr(const Hdf5File& file, const std::string& group) {
  return file.has_attribute(group, "lr_configured") ? file.float_attribute(group, "lr_configured") : 0.0;
}

}  // namespace qn::test
