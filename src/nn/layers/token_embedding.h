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
  /// One table [vocabulary, dim], in the scope of its module as "embed_tokens". `deviation`: of its first values;
  /// without it 1 / sqrt(dim).
  TokenEmbedding(const Scope& scope, int64_t vocabulary, int64_t dim, std::optional<double> deviation = {});
  /// Bands with projections to `width`.
  TokenEmbedding(const Scope& scope, const Bands& bands, int64_t width);

  /// scale * embedding: [ids.size(), width].
  Var forward(Tape& tape, std::span<const int32_t> ids, double scale) const;

  Weight* table(int64_t band) const { return tables_[static_cast<size_t>(band)]; }
  Weight* projection(int64_t band) const { return projections_[static_cast<size_t>(band)].weight; }
  const std::optional<Bands>& bands() const { return bands_; }

 private:
  std::optional<Bands> bands_;
  int64_t width_;
  std::vector<Weight*> tables_;
  std::vector<ActivationPoint*> looked_up_;  // the tables' outputs
  std::vector<Linear> projections_;
};

}  // namespace qn
