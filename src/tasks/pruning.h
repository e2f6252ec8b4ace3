// Pruning: a language model with some of its layers, counted anew, as if it had never had others. `layers_to_keep` is
// "0,2,4" or "every-other", see LayerSelection.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "core/safetensors.h"
#include "models/layer_selection.h"
#include "nn/state_dict.h"
#include "tasks/run_config.h"

namespace qn {

/// The section `model` of a configuration alone.
struct ModelSection {
  ModelConfig model;
  void visit(ConfigVisitor& v) { v.section("model", model, ""); }
};
/// That of a checkpoint's configuration: what else it says does not matter here.
ModelSection model_of_checkpoint(const std::string& config);

/// Throws qn::Error saying what differs unless a checkpoint's network computes what the configuration's does; both as
/// dump_config() writes them, without what does not decide that.
void check_architecture(const std::string& trained, const std::string& configured);

/// Makes config.model, which is the trained network, the one that checkpoint.layers_to_keep leaves of it. A model that
/// has just as many layers as are listed is that already. Throws UsageError as LayerSelection does.
void prune_config(RunConfig& config);

/// Leaves these layers of a checkpoint's weights, codes, plan and configuration. The state of its optimizer and of a
/// k-means that was under way is left out: the run cannot go on with another network.
void prune_checkpoint(StateDict& state, const std::string& layers_to_keep);

/// The same for a packed file, which afterwards reads as if only these layers had been packed.
void prune_packed(SafetensorsReader& file, const std::string& layers_to_keep);

/// A packed file that reads as `file` does; see SafetensorsReader::rename().
SafetensorsWriter packed_copy(const SafetensorsReader& file);

}  // namespace qn
