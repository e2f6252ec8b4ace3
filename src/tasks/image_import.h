// EfficientNets of others, in: one safetensors file in the names of timm, torchvision or efficientnet-pytorch.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "tasks/hf_folder.h"

namespace qn {

/// Makes `out` a folder with a checkpoint of the network in `source` and a configuration to go on with. Which variant
/// it is, the tensors' shapes tell. What they do not tell (padding, eps of normalisations, how pictures become inputs)
/// is as the names' package has it; `overrides` ("model.padding=symmetric") say otherwise. `classes`: a text file with
/// a name per line; empty: classes are called by their numbers. Throws qn::Error listing tensors that are missing,
/// unknown or of another shape.
ImportSummary import_image_model(const std::filesystem::path& source, const std::filesystem::path& classes,
                                 const std::vector<std::string>& overrides, const std::filesystem::path& out);

}  // namespace qn
