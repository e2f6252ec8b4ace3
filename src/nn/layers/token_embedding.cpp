#include "nn/layers/token_embedding.h"

#include <cmath>

#include "nn/layers/row_parts.h"

namespace qn {

TokenEmbedding::TokenEmbedding(const Scope& scope, int64_t vocabulary, int64_t dim, std::optional<double> deviation)
    : width_(dim) {
  tables_.push_back(scope.table("embed_tokens.weight", 0, vocabulary, dim,
                                init::normal(deviation.value_or(1.0 / std::sqrt(static_cast<double>(dim))), kPadId)));
  looked_up_.push_back(scope.activation("embed_tokens.output"));
}

TokenEmbedding::TokenEmbedding(const Scope& scope, const Bands& bands, int64_t width) : bands_(bands), width_(width) {
  for (int64_t i = 0; i < bands.count(); ++i) {
    const Scope band = scope.in(fmt::format("embed_tokens.embeddings.{}", i));
    const int64_t dim = bands.dim(i);
    // As in the reference, row 1 of every band starts at zero, although only band 0's is the padding row.
    tables_.push_back(band.table("0.weight", bands.first(i), bands.size(i), dim,
                                 init::normal(1.0 / std::sqrt(static_cast<double>(dim)), bands.size(i) > 1 ? 1 : -1)));
    looked_up_.push_back(band.activation("0.output"));
    projections_.push_back(
        Linear::build(band, "1", groups::kEmbeddingProjection, width, dim, init::xavier(width, dim), std::nullopt));
  }
}

Var TokenEmbedding::forward(Tape& tape, std::span<const int32_t> ids, double scale) const {
  if (!bands_) return (*looked_up_[0])(tape, tables_[0]->lookup(tape, ids, scale, kPadId));
  const Bands::Split split = bands_->split(ids, tape.pass().row_multiple);
  const auto projected = [&](size_t i) {
    const Var rows = (*looked_up_[i])(tape, tables_[i]->lookup(tape, split.ids[i], 1.0, i == 0 ? kPadId : -1));
    return projections_[i](tape, rows);
  };
  if (!tape.recording()) {  // band by band, each in the memory of the one before
    const Var y = tape.result({std::ssize(ids), width_});
    for (size_t i = 0; i < tables_.size(); ++i)
      if (!split.rows[i].empty())
        in_scratch(tape, [&] { tape.k.scatter_rows(y.value, projected(i).value, tape.upload(split.rows[i]), scale); });
    return y;
  }
  std::vector<RowPart> parts;
  for (size_t i = 0; i < tables_.size(); ++i)
    if (!split.rows[i].empty()) parts.push_back({projected(i), split.rows[i]});
  return assemble_rows(tape, static_cast<int64_t>(ids.size()), width_, parts, scale);
}

}  // namespace qn
