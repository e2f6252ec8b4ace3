// Reads fairseq's quantization file as it is (fairseq semantics, "Iterative PQ" 3.4).
#pragma once

#include <filesystem>
#include <span>
#include <string>

#include "compress/plan.h"

namespace qn {

/// Rules from YAML text with the optional sections
///   n_centroids:        {LayerType: {key: attribute or fuzzy_name, value: {text: K, "*": K}}}
///   block_sizes:        {LayerType: {key: ..., value: {text: d}}}
///   layers_to_quantize: [pattern of stage 0, pattern of stage 1, ...]
/// The text means what it means to fairseq, which reads it with PyYAML (python_yaml.h). A section that is absent keeps
/// its default; an empty file is all defaults, with a warning. Other sections, layer types and keys are ignored, with a
/// warning where they look misspelt. Keys of sizes that are no texts never fit an attribute; a warning says to quote
/// them. `source` names the text in messages. Throws qn::Error with source, line and key.
/// `own_sections` are read by the caller.
QuantizeRules parse_quantize_rules(const std::string& text, const std::string& source,
                                   std::span<const std::string> own_sections = {});

/// The same from a file.
QuantizeRules read_quantize_rules(const std::filesystem::path& path);

}  // namespace qn
