// The section `ipq` of a configuration.
#pragma once

#include <string>
#include <vector>

#include "core/config.h"

namespace qn {

/// The section `ipq`: iterative product quantization (reference section 3).
struct IpqConfig {
  std::string rules;
  std::vector<std::string> stages;
  int64_t updates_per_stage = 0;
  int64_t kmeans_iterations = 15;
  double frequency_exponent = 1.0;
  std::string centroid_gradient = "sum";
  bool dense_softmax = false;
  bool restart_schedule = false;
  int64_t save_every_kmeans_iterations = 0;
  std::string centroids = "fp16", dense = "fp16";
  void visit(ConfigVisitor& v);
  void validate(const ConfigChecker& c) const;
};

}  // namespace qn
