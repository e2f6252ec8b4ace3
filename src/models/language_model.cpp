#include "models/language_model.h"

#include "models/transformer_lm.h"

namespace qn {

std::unique_ptr<LanguageModel> make_language_model(const ModelConfig& config, int64_t vocabulary,
                                                   int64_t default_positions) {
  ModelConfig resolved = config;
  if (resolved.max_positions == 0) resolved.max_positions = default_positions;
  if (resolved.input_dim == 0) resolved.input_dim = resolved.embed_dim;
  if (resolved.output_dim == 0) resolved.output_dim = resolved.embed_dim;
  return std::make_unique<TransformerLm>(resolved, vocabulary);
}

}  // namespace qn
