#include <cmath>

#include "tasks/run_task.h"

namespace qn {

void GenerateConfig::visit(ConfigVisitor& v) {
  BeamSearchConfig::visit(v);
  v.field("max_length_a", max_length_a,
          "translations have at most max_length_a * tokens of the source + max_length_b tokens; unlike in fairseq, the "
          "line's own and not the longest one's of its batch");
  v.field("max_length_b", max_length_b, "see max_length_a");
  v.field("batch", batch, "lines translated together");
  v.field("bpe_marker", bpe_marker, "what pieces of words end in that the next one belongs to, such as '@@'");
}

void GenerateConfig::validate(const ConfigChecker& c) const {
  BeamSearchConfig::validate(c);
  constexpr int64_t kMost = 1 << 20;
  c.check(max_length_a >= 0.0 && max_length_a <= 1000.0, "max_length_a", "must be in 0 to 1000, got {}", max_length_a);
  c.check(max_length_b >= 0 && max_length_b <= kMost, "max_length_b", "must be in 0 to {}, got {}", kMost,
          max_length_b);
  c.check(batch >= 1 && batch <= kMost, "batch", "must be in 1 to {}, got {}", kMost, batch);
}

}  // namespace qn
