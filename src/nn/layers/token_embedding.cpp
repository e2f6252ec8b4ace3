#include "nn/layers/token_embedding.h"

#include <cmath>

namespace qn {

TokenEmbedding::TokenEmbedding(const Build& build, int64_t vocabulary, int64_t dim) : width_(dim) {
  tables_.push_back(build.table("decoder.embed_tokens.weight", 0, vocabulary, dim,
                                init::normal(1.0 / std::sqrt(static_cast<double>(dim)), kPadId)));
}

TokenEmbedding::TokenEmbedding(const Build& build, const Bands& bands, int64_t width) : bands_(bands), width_(width) {
  for (int64_t i = 0; i < bands.count(); ++i) {
    const std::string prefix = fmt::format("decoder.embed_tokens.embeddings.{}.", i);
    const int64_t dim = bands.dim(i);
    // As in the reference, row 1 of every band starts at zero, although only band 0's is the padding row.
    tables_.push_back(build.table(prefix + "0.weight", bands.first(i), bands.size(i), dim,
                                  init::normal(1.0 / std::sqrt(static_cast<double>(dim)), bands.size(i) > 1 ? 1 : -1)));
    projections_.push_back(
        build.linear(prefix + "1.weight", groups::kEmbeddingProjection, width, dim, init::xavier(width, dim)));
  }
}

Var TokenEmbedding::forward(Tape& tape, std::span<const int32_t> ids, double scale) const {
  if (!bands_) return embedding(tape, tables_[0]->table(tape), ids, scale, kPadId);
  const Bands::Split split = bands_->split(ids, tape.pass().row_multiple);
  std::vector<RowPart> parts;
  for (size_t i = 0; i < tables_.size(); ++i) {
    if (split.rows[i].empty()) continue;
    const Var rows = embedding(tape, tables_[i]->table(tape), split.ids[i], 1.0, i == 0 ? kPadId : -1);
    parts.push_back({linear(tape, rows, projections_[i]->value(tape), {}), split.rows[i]});
  }
  return assemble_rows(tape, static_cast<int64_t>(ids.size()), width_, parts, scale);
}

}  // namespace qn
