// What classifiers of any kind have in common.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "ops/tape.h"
#include "tasks/run_task.h"

namespace qn {

/// Names of classes as one text of a file, and back.
std::string labels_text(const std::vector<std::string>& labels);
std::vector<std::string> labels_of(const std::string& text);

/// [rows, cols] as doubles, on the host.
std::vector<double> host_doubles(Tape& tape, const Tensor& x);

/// The most likely of the classes, and the softmax of all logits.
Prediction most_likely(std::span<const double> logits, const std::vector<std::string>& labels);

}  // namespace qn
