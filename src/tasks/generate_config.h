// What `generate` may be asked: how to translate, or how to go on from a prompt.
#pragma once

#include <set>
#include <string>

#include "models/beam_search.h"
#include "models/sampling.h"

namespace qn {

/// What visit() lists becomes an option each of `generate`. Models differ in what they have a use for.
struct GenerateConfig : BeamSearchConfig, SamplingConfig {
  double max_length_a = 0.0;
  int64_t max_length_b = 200;
  int64_t max_length = 100, samples = 1;
  int64_t batch = 64;
  std::string bpe_marker;
  void visit(ConfigVisitor& v);
  void validate(const ConfigChecker& c) const;

  std::set<std::string> given;  ///< keys that the user has set
  int64_t lines_before = 0;     ///< of the text: a line's random numbers depend on its place

  /// Throws UsageError naming the first of these keys that was set, and `why` it is of no use.
  void refuse(std::initializer_list<const char*> keys, const std::string& why) const;
};

}  // namespace qn
