// Optimizer options as optimizers.h5 stores them.
#pragma once

#include <string>

#include "core/hdf5_file.h"
#include "train/optimizer.h"

namespace qn::test {

inline OptimizerConfig golden_optimizer_config(const Hdf5File& file, const std::string& group) {
  OptimizerConfig c;
  c.name = value_named<OptimizerKind>(file.string_attribute(group, "optimizer"), "optimizer");
  const auto read = [&](const char* name, double& value) {
    if (file.has_attribute(group, name)) value = file.float_attribute(group, name);
  };
  read("momentum", c.momentum);
  read("beta1", c.beta1);
  read("beta2", c.beta2);
  read("eps", c.eps);
  read("weight_decay", c.weight_decay);
  read("clip_norm", c.clip_norm);
  return c;
}

/// The rate that stands in for the one before the first step.
inline double golden_initial_lr(const Hdf5File& file, const std::string& group) {
  return file.float_attribute(group, "lr_configured");
}

}  // namespace qn::test
