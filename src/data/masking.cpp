#include "data/masking.h"

#include <numeric>

#include "core/error.h"

namespace qn {
namespace {

/// What becomes of a unit.
enum class Fate : uint8_t { seen, masked, left, random };

std::vector<Fate> draw_fates(Pcg64& random, int64_t units, const MaskingOptions& options) {
  std::vector<Fate> fates(static_cast<size_t>(units), Fate::seen);
  const auto count = static_cast<int64_t>(options.mask_prob * static_cast<double>(units) + random.uniform());
  for (const int64_t unit : random.choice(units, count)) fates[static_cast<size_t>(unit)] = Fate::masked;
  // Numbers are drawn for all units, also those that stay.
  const double special = options.random_token_prob + options.leave_unmasked_prob;
  if (special <= 0.0) return fates;
  std::vector<double> first(fates.size()), second;
  for (double& u : first) u = random.uniform();
  if (options.random_token_prob > 0.0 && options.leave_unmasked_prob > 0.0) {
    second.resize(fates.size());
    for (double& u : second) u = random.uniform();
  }
  for (size_t i = 0; i < fates.size(); ++i) {
    if (fates[i] != Fate::masked || first[i] >= special) continue;
    const bool left =
        second.empty() ? options.random_token_prob == 0.0 : second[i] < options.leave_unmasked_prob / special;
    fates[i] = left ? Fate::left : Fate::random;
  }
  return fates;
}

}  // namespace

Masking::Masking(const MaskingOptions& options, std::span<const double> replacement_weights,
                 std::vector<bool> begins_word)
    : options_(options), begins_word_(std::move(begins_word)) {
  QN_ASSERT(options.mask_id >= 0);
  if (options.random_token_prob > 0.0) replacement_ = WeightedChoice(replacement_weights);
}

std::vector<size_t> Masking::units_of(std::span<const int32_t> tokens) const {
  std::vector<size_t> begins;
  for (size_t i = 0; i < tokens.size(); ++i)
    if (begins_word_.empty() || begins_word_[static_cast<size_t>(tokens[i])]) begins.push_back(i);
  begins.push_back(tokens.size());
  return begins;
}

Masking::Item Masking::masked(std::span<const int32_t> tokens, int64_t seed, int64_t epoch, int64_t number) const {
  const std::vector<size_t> units = units_of(tokens);
  Pcg64 random(item_seed(seed, epoch, number));
  const std::vector<Fate> fates = draw_fates(random, std::ssize(units) - 1, options_);
  Item item{{tokens.begin(), tokens.end()}, std::vector<int32_t>(tokens.size(), options_.pad_id)};
  for (size_t unit = 0; unit < fates.size(); ++unit)
    for (size_t i = units[unit]; i < units[unit + 1] && fates[unit] != Fate::seen; ++i) {
      item.target[i] = tokens[i];
      if (fates[unit] == Fate::masked) item.source[i] = options_.mask_id;
      if (fates[unit] == Fate::random) item.source[i] = static_cast<int32_t>(replacement_.draw(random));
    }
  return item;
}

}  // namespace qn
