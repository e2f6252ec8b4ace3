// Reads fairseq's quantization file as it is (fairseq semantics, "Iterative PQ" 3.4).
#pragma once

#include <filesystem>
#include <string>

#include "compress/plan.h"

namespace qn {

/// Rules from YAML text with the optional sections
///   n_centroids:        {LayerType: {key: attribute or fuzzy_name, value: {text: K, "*": K}}}
///   block_sizes:        {LayerType: {key: ..., value: {text: d}}}
///   layers_to_quantize: [pattern of stage 0, pattern of stage 1, ...]
/// A section that is absent keeps its default; an empty file is all defaults. `source` names the text in messages.
/// Throws qn::Error with source, line, key and, for unknown keys, the nearest known one.
QuantizeRules parse_quantize_rules(const std::string& text, const std::string& source);

/// The same from a file.
QuantizeRules read_quantize_rules(const std::filesystem::path& path);

}  // namespace qn
