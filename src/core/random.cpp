#include "core/random.h"

#include <cmath>
#include <numbers>
#include <unordered_map>

#include "core/error.h"
#include "core/philox.h"

namespace qn {
namespace {

uint64_t mix(uint64_t x) {  // finaliser of splitmix64
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

}  // namespace

Philox4 philox4x32(Philox4 counter, std::array<uint32_t, 2> key) {
  uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]};
  philox_block(c, key[0], key[1]);
  return {c[0], c[1], c[2], c[3]};
}

uint64_t hash_name(const char* name) {  // FNV-1a
  uint64_t h = 0xcbf29ce484222325ULL;
  for (; *name != '\0'; ++name) h = (h ^ static_cast<unsigned char>(*name)) * 0x100000001b3ULL;
  return h;
}

RandomStream::RandomStream(const RandomKey& key) : update_(key.update), micro_batch_(key.micro_batch) {
  const uint64_t k = mix(mix(mix(key.seed) + static_cast<uint64_t>(key.purpose)) + key.id);
  key_ = {static_cast<uint32_t>(k), static_cast<uint32_t>(k >> 32)};
}

double RandomStream::uniform(uint64_t i) const {
  const Philox4 b = block(i / 2);
  const size_t w = (i % 2) * 2;
  const uint64_t bits = (static_cast<uint64_t>(b[w]) << 32 | b[w + 1]) >> 11;
  return static_cast<double>(bits) * 0x1.0p-53;
}

double RandomStream::normal(uint64_t i) const {
  const Philox4 b = block(i);
  const double u = (static_cast<double>((static_cast<uint64_t>(b[0]) << 32 | b[1]) >> 11) + 0.5) * 0x1.0p-53;
  const double v = static_cast<double>((static_cast<uint64_t>(b[2]) << 32 | b[3]) >> 11) * 0x1.0p-53;
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

std::vector<int64_t> RandomStream::sample_without_replacement(int64_t range, int64_t count) const {
  QN_ASSERT(count <= range, "{} distinct values below {}", count, range);
  // The first `count` steps of a Fisher-Yates shuffle of 0..range-1, storing only the entries that moved.
  std::unordered_map<int64_t, int64_t> moved;
  auto at = [&](int64_t i) {
    const auto it = moved.find(i);
    return it == moved.end() ? i : it->second;
  };
  std::vector<int64_t> picked(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    const auto span = static_cast<double>(range - i);
    const int64_t j = std::min(range - 1, i + static_cast<int64_t>(uniform(static_cast<uint64_t>(i)) * span));
    picked[static_cast<size_t>(i)] = at(j);
    moved[j] = at(i);
  }
  return picked;
}

}  // namespace qn
