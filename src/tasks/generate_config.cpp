#include "tasks/generate_config.h"

#include <algorithm>

namespace qn {

void GenerateConfig::visit(ConfigVisitor& v) {
  BeamSearchConfig::visit(v);
  v.field("max_length_a", max_length_a,
          "translations have at most max_length_a * tokens of the source + max_length_b tokens; unlike in fairseq, the "
          "line's own and not the longest one's of its batch");
  v.field("max_length_b", max_length_b, "see max_length_a");
  SamplingConfig::visit(v);
  v.field("max_length", max_length, "language models: tokens to write at most, the end mark included");
  v.field("samples", samples, "language models: texts to write for each prompt");
  v.field("batch", batch, "lines translated or continued together");
  v.field("bpe_marker", bpe_marker, "what pieces of words end in that the next one belongs to, such as '@@'");
}

void GenerateConfig::validate(const ConfigChecker& c) const {
  BeamSearchConfig::validate(c);
  SamplingConfig::validate(c);
  constexpr int64_t kMost = 1 << 20;
  c.check(max_length_a >= 0.0 && max_length_a <= 1000.0, "max_length_a", "must be in 0 to 1000, got {}", max_length_a);
  c.check(max_length_b >= 0 && max_length_b <= kMost, "max_length_b", "must be in 0 to {}, got {}", kMost,
          max_length_b);
  for (const auto& [key, value] : {std::pair{"max_length", max_length}, {"samples", samples}, {"batch", batch}})
    c.check(value >= 1 && value <= kMost, key, "must be in 1 to {}, got {}", kMost, value);
}

void GenerateConfig::refuse(std::initializer_list<const char*> keys, const std::string& why) const {
  for (const char* key : keys) {
    std::string option(key);
    std::replace(option.begin(), option.end(), '_', '-');
    QN_CHECK_USAGE(!given.contains(key), "--{} {}", option, why);
  }
}

}  // namespace qn
