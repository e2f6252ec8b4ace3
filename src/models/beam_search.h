// Beam search as fairseq's SequenceGenerator does it, for any model that gives the next token's distribution.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/config.h"
#include "core/tensor.h"

namespace qn {

/// Hypotheses that grow by one token at a time.
class TokenModel {
 public:
  virtual ~TokenModel() = default;
  virtual int64_t vocabulary() const = 0;
  /// log p of every word behind tokens[i], which continues what was hypothesis parents[i] of the call before (anything
  /// in the first call) and belongs to a sentence: [tokens, vocabulary], f32 or f64 in host memory, until the next
  /// call. Hypotheses of a sentence are side by side.
  virtual Tensor next(std::span<const int32_t> tokens, std::span<const int32_t> parents,
                      std::span<const int32_t> sentences) = 0;
};

/// How to search. Names and defaults follow fairseq-generate.
struct BeamSearchConfig {
  int64_t beam = 5;
  double length_penalty = 1.0, unk_penalty = 0.0;
  int64_t min_length = 1;
  int64_t no_repeat_ngram = 0;
  void visit(ConfigVisitor& v);
  void validate(const ConfigChecker& c) const;
};

struct BeamHypothesis {
  std::vector<int32_t> tokens;            ///< the end mark included
  std::vector<double> positional_scores;  ///< of each token: its log p, less the penalty of an unknown word
  double score = 0.0;                     ///< their sum / length^length_penalty; the end mark counts
};

/// The best hypotheses of every sentence, best first, at most `beam` of each. `longest` has, for every sentence, how
/// many tokens may come before the end mark, which is then forced. A step keeps the 2 * beam best candidates; the end
/// mark among the first `beam` of them finishes a hypothesis, and `beam` of these finish a sentence.
std::vector<std::vector<BeamHypothesis>> beam_search(TokenModel& model, std::span<const int64_t> longest,
                                                     const BeamSearchConfig& config);

}  // namespace qn
