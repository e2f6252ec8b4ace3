#include "data/pcg64.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "core/error.h"

namespace qn {
namespace {

__extension__ using Wide128 = unsigned __int128;

Wide128 joined(uint64_t high, uint64_t low) { return (Wide128{high} << 64) | low; }

/// numpy.random.SeedSequence(seed).generate_state(8, uint32).
std::array<uint32_t, 8> seed_sequence(uint32_t seed) {
  constexpr uint32_t kInitA = 0x43b0d7e5, kMultA = 0x931e8875, kInitB = 0x8b51f9dd, kMultB = 0x58f38ded,
                     kMixLeft = 0xca01f9dd, kMixRight = 0x4973f715;
  constexpr int kShift = 16;
  uint32_t constant = kInitA;
  const auto hash = [&constant](uint32_t value) {
    value ^= constant;
    constant *= kMultA;
    value *= constant;
    return value ^ (value >> kShift);
  };
  const auto mix = [](uint32_t x, uint32_t y) {
    const uint32_t result = kMixLeft * x - kMixRight * y;
    return result ^ (result >> kShift);
  };
  std::array<uint32_t, 4> pool{};
  for (size_t i = 0; i < pool.size(); ++i) pool[i] = hash(i == 0 ? seed : 0);
  for (size_t from = 0; from < pool.size(); ++from)
    for (size_t to = 0; to < pool.size(); ++to)
      if (from != to) pool[to] = mix(pool[to], hash(pool[from]));
  std::array<uint32_t, 8> result{};
  constant = kInitB;
  for (size_t i = 0; i < result.size(); ++i) {
    uint32_t value = pool[i % pool.size()] ^ constant;
    constant *= kMultB;
    value *= constant;
    result[i] = value ^ (value >> kShift);
  }
  return result;
}

}  // namespace

Pcg64::Pcg64(uint32_t seed) {
  const std::array<uint32_t, 8> words = seed_sequence(seed);
  const auto number = [&](size_t i) { return (uint64_t{words[2 * i + 1]} << 32) | words[2 * i]; };
  const Wide128 start = joined(number(0), number(1)), increment = (joined(number(2), number(3)) << 1) | 1;
  increment_ = {static_cast<uint64_t>(increment >> 64), static_cast<uint64_t>(increment)};
  step();
  const Wide128 state = joined(state_.high, state_.low) + start;
  state_ = {static_cast<uint64_t>(state >> 64), static_cast<uint64_t>(state)};
  step();
}

void Pcg64::step() {
  constexpr uint64_t kHigh = 2549297995355413924U, kLow = 4865540595714422341U;
  const Wide128 state = joined(state_.high, state_.low) * joined(kHigh, kLow) + joined(increment_.high, increment_.low);
  state_ = {static_cast<uint64_t>(state >> 64), static_cast<uint64_t>(state)};
}

uint64_t Pcg64::next64() {
  step();
  return std::rotr(state_.high ^ state_.low, static_cast<int>(state_.high >> 58));
}

uint32_t Pcg64::next32() {
  if (has_half_) {
    has_half_ = false;
    return half_;
  }
  const uint64_t next = next64();
  has_half_ = true;
  half_ = static_cast<uint32_t>(next >> 32);
  return static_cast<uint32_t>(next);
}

uint32_t Pcg64::bounded(uint32_t most) {
  if (most == 0) return 0;
  const uint32_t count = most + 1;
  uint64_t product = uint64_t{next32()} * count;
  if (static_cast<uint32_t>(product) < count) {
    const uint32_t threshold = (UINT32_MAX - most) % count;
    while (static_cast<uint32_t>(product) < threshold) product = uint64_t{next32()} * count;
  }
  return static_cast<uint32_t>(product >> 32);
}

void Pcg64::shuffle(std::span<int64_t> values, size_t first) {
  for (size_t i = values.size(); i-- > first;) std::swap(values[i], values[bounded(static_cast<uint32_t>(i))]);
}

std::vector<int64_t> Pcg64::choice(int64_t n, int64_t count) {
  QN_ASSERT(count >= 0 && count <= n && n < UINT32_MAX, "{} of {}", count, n);
  constexpr int64_t kFewItems = 10'000, kLargeShare = 50;
  if (n > kFewItems && count > n / kLargeShare) {
    std::vector<int64_t> all(static_cast<size_t>(n));
    std::iota(all.begin(), all.end(), 0);
    shuffle(all, static_cast<size_t>(std::max<int64_t>(n - count, 1)));
    return {all.end() - count, all.end()};
  }
  // Floyd's algorithm, then a shuffle.
  std::vector<int64_t> chosen;
  std::vector<bool> taken(static_cast<size_t>(n));
  for (int64_t j = n - count; j < n; ++j) {
    int64_t value = bounded(static_cast<uint32_t>(j));
    if (taken[static_cast<size_t>(value)]) value = j;
    taken[static_cast<size_t>(value)] = true;
    chosen.push_back(value);
  }
  shuffle(chosen, 1);
  return chosen;
}

WeightedChoice::WeightedChoice(std::span<const double> weights) {
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  double sum = 0.0;
  for (const double weight : weights) sums_.push_back(sum += weight / total);
  for (double& s : sums_) s /= sum;
}

int64_t WeightedChoice::draw(Pcg64& random) const {
  return std::upper_bound(sums_.begin(), sums_.end(), random.uniform()) - sums_.begin();
}

int64_t python_tuple_hash(const std::array<int64_t, 3>& values) {
  constexpr uint64_t kPrime1 = 11400714785074694791U, kPrime2 = 14029467366897019727U, kPrime5 = 2870177450012600261U,
                     kLengthMix = 3527539U, kReplacement = 1546275796U;
  constexpr int kRotation = 31;
  uint64_t sum = kPrime5;
  for (const int64_t value : values) {
    QN_ASSERT(value >= 0 && value < (int64_t{1} << 61) - 1);
    sum = std::rotl(sum + static_cast<uint64_t>(value) * kPrime2, kRotation) * kPrime1;
  }
  sum += values.size() ^ (kPrime5 ^ kLengthMix);
  return static_cast<int64_t>(sum == UINT64_MAX ? kReplacement : sum);
}

uint32_t item_seed(int64_t seed, int64_t epoch, int64_t item) {
  constexpr double kSeeds = 1e6;
  const double remainder = std::fmod(static_cast<double>(python_tuple_hash({seed, epoch, item})), kSeeds);
  return static_cast<uint32_t>(remainder < 0.0 ? remainder + kSeeds : remainder);
}

}  // namespace qn
