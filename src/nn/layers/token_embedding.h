// Token ids to vectors: one table, or one table and projection per frequency band (adaptive input, reference 5.5).
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "core/special_tokens.h"
#include "nn/layers/bands.h"
#include "nn/layers/linear.h"

namespace qn {

class TokenEmbedding {
 public:
  /// One table [vocabulary, dim].
  TokenEmbedding(const Build& build, int64_t vocabulary, int64_t dim);
  /// Bands with projections to `width`.
  TokenEmbedding(const Build& build, const Bands& bands, int64_t width);

  /// scale * embedding: [ids.size(), width].
  Var forward(Tape& tape, std::span<const int32_t> ids, double scale) const;

  Weight* table(int64_t band) const { return tables_[static_cast<size_t>(band)]; }
  Weight* projection(int64_t band) const { return projections_[static_cast<size_t>(band)]; }
  const std::optional<Bands>& bands() const { return bands_; }

 private:
  std::optional<Bands> bands_;
  int64_t width_;
  std::vector<Weight*> tables_, projections_;
};

}  // namespace qn
