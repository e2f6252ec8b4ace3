// Drawing the next token from a language model's distribution.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/config.h"
#include "core/random.h"
#include "core/tensor.h"

namespace qn {

/// How to draw. Names and meanings are those that are usual for language models.
struct SamplingConfig {
  double temperature = 1.0;
  int64_t top_k = 0;
  double top_p = 1.0;
  int64_t seed = 1;
  bool unknown_words = false;
  void visit(ConfigVisitor& v);
  void validate(const ConfigChecker& c) const;
};

/// A token and its probability.
struct Choice {
  int32_t token;
  double probability;
};

/// What is drawn from: tokens by rising id, their probabilities summing to 1. `log_p` is log p of every word (f32 or
/// f64 in host memory). p^(1 / temperature) is cut to the top_k most likely tokens and then to the fewest of these that
/// together have at least top_p of what is left; of equally likely ones the first comes first. Temperature 0 leaves the
/// most likely token. `</s>` is left out unless `may_end`; `<s>` and `<pad>` always are, and `<unk>` unless
/// unknown_words. Throws qn::Error where a log p is not a number or nothing is left.
std::vector<Choice> choices(const Tensor& log_p, const SamplingConfig& config, bool may_end);

/// The token at `u`, uniform in [0, 1), of the sums of their probabilities.
int32_t draw(std::span<const Choice> choices, double u);

}  // namespace qn
