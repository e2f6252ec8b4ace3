#include "models/sampling.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/special_tokens.h"

namespace qn {
namespace {

bool more_likely(const Choice& a, const Choice& b) {
  return a.probability != b.probability ? a.probability > b.probability : a.token < b.token;
}
bool lower_id(const Choice& a, const Choice& b) { return a.token < b.token; }

/// What may be drawn, with log p in the place of probabilities.
template <typename P>
std::vector<Choice> candidates(const Tensor& row, const SamplingConfig& config, bool may_end) {
  const std::span<const P> log_p(row.as<P>(), static_cast<size_t>(row.elements()));
  std::vector<Choice> found;
  for (size_t word = 0; word < log_p.size(); ++word) {
    const auto token = static_cast<int32_t>(word);
    QN_CHECK(!std::isnan(log_p[word]), "the model gives no probabilities (not a number): it is of no use");
    if (token == kBosId || token == kPadId || (token == kEosId && !may_end)) continue;
    if (token == kUnkId && !config.unknown_words) continue;
    if (std::isfinite(log_p[word])) found.push_back({token, static_cast<double>(log_p[word])});
  }
  QN_CHECK(!found.empty(), "the model gives no word any probability: it is of no use");
  return found;
}

void keep_most_likely(std::vector<Choice>& all, int64_t count) {
  if (count >= std::ssize(all)) return;
  std::nth_element(all.begin(), all.begin() + count, all.end(), more_likely);
  all.resize(static_cast<size_t>(count));
  std::sort(all.begin(), all.end(), lower_id);
}

double sum_of(const std::vector<Choice>& all) {
  double sum = 0.0;
  for (const Choice& choice : all) sum += choice.probability;
  return sum;
}

/// The fewest that together have at least `share` of all.
void keep_nucleus(std::vector<Choice>& all, double share) {
  if (share >= 1.0) return;
  const double sum = sum_of(all);
  // Those below this bound have less than 1 - share together: they need not be sorted.
  const double bound = sum * (1.0 - share) / static_cast<double>(all.size());
  std::erase_if(all, [&](const Choice& choice) { return choice.probability < bound; });
  std::sort(all.begin(), all.end(), more_likely);
  double kept = 0.0;
  size_t count = 0;
  while (count < all.size() && (count == 0 || kept < share * sum)) kept += all[count++].probability;
  all.resize(count);
  std::sort(all.begin(), all.end(), lower_id);
}

}  // namespace

std::vector<Choice> choices(const Tensor& log_p, const SamplingConfig& config, bool may_end) {
  std::vector<Choice> all = log_p.dtype == DType::f64 ? candidates<double>(log_p, config, may_end)
                                                      : candidates<float>(log_p, config, may_end);
  keep_most_likely(all, config.temperature == 0.0 ? 1 : config.top_k > 0 ? config.top_k : std::ssize(all));
  const double largest = std::max_element(all.begin(), all.end(), [](const Choice& a, const Choice& b) {
                           return a.probability < b.probability;
                         })->probability;
  const double scale = config.temperature == 0.0 ? 1.0 : 1.0 / config.temperature;
  for (Choice& choice : all) choice.probability = std::exp((choice.probability - largest) * scale);
  keep_nucleus(all, config.top_p);
  const double sum = sum_of(all);
  for (Choice& choice : all) choice.probability /= sum;
  return all;
}

int32_t draw(std::span<const Choice> choices, double u) {
  double sum = 0.0;
  for (const Choice& choice : choices) {
    sum += choice.probability;
    if (u < sum) return choice.token;
  }
  return choices.back().token;  // of rounding
}

void SamplingConfig::visit(ConfigVisitor& v) {
  v.field(
      "temperature", temperature,
      "language models: tokens are drawn by p^(1/temperature): below 1 likelier ones more often; 0: always the most "
      "likely one");
  v.field("top_k", top_k, "language models: only the so many most likely tokens are drawn (0: all)");
  v.field("top_p", top_p, "language models: only the fewest tokens that have this much probability together are drawn");
  v.field("seed", seed, "language models: of the random numbers; the same seed writes the same text");
  v.field("unknown_words", unknown_words, "language models: <unk> may be written, too");
}

void SamplingConfig::validate(const ConfigChecker& c) const {
  c.check(temperature >= 0.0 && temperature <= 1e6, "temperature", "must be in 0 to 1e6, got {}", temperature);
  c.check(top_k >= 0, "top_k", "must not be negative, got {}", top_k);
  c.check(top_p > 0.0 && top_p <= 1.0, "top_p", "must be above 0 and at most 1, got {}", top_p);
  c.check(seed >= 0, "seed", "must not be negative, got {}", seed);
}

}  // namespace qn
