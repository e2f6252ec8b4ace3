#include "core/random.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "core/error.h"

namespace qn {
namespace {

// Known answers of the Random123 distribution (kat_vectors, philox4x32 with 10 rounds).
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Philox4{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr uint32_t ones = 0xffffffff;
  EXPECT_EQ(philox4x32({ones, ones, ones, ones}, {ones, ones}),
            (Philox4{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Philox4{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomStream, WordsAreThoseOfTheBlocks) {
  const RandomStream stream({.seed = 5, .purpose = Purpose::noise, .id = 9, .update = 3, .micro_batch = 2});
  for (uint64_t i = 0; i < 40; ++i) EXPECT_EQ(stream.u32(i), stream.block(i / 4)[i % 4]);
  const uint64_t far = (uint64_t{1} << 32) + 1;
  EXPECT_EQ(stream.block(far), philox4x32({1, 1, 3, 2}, stream.key())) << "the counter has 64 bits";
}

TEST(RandomStream, EveryPartOfTheKeyCounts) {
  const RandomKey base{.seed = 1, .purpose = Purpose::dropout, .id = 2, .update = 3, .micro_batch = 4};
  std::vector<RandomKey> keys(6, base);
  keys[1].seed = 2;
  keys[2].purpose = Purpose::noise;
  keys[3].id = 3;
  keys[4].update = 4;
  keys[5].micro_batch = 3;
  std::set<Philox4> blocks;
  for (const RandomKey& key : keys) blocks.insert(RandomStream(key).block(0));
  EXPECT_EQ(blocks.size(), keys.size());
  EXPECT_EQ(RandomStream(base).block(7), RandomStream(base).block(7));
}

// Means of n independent draws stay within 5 standard deviations of their expectation; the draws are fixed by the key.
constexpr uint64_t kDraws = 200000;
double bound(double variance) { return 5 * std::sqrt(variance / static_cast<double>(kDraws)); }

TEST(RandomStream, UniformMoments) {
  const RandomStream stream({.seed = 42});
  double mean = 0, square = 0, lag = 0, smallest = 1, largest = 0;
  for (uint64_t i = 0; i < kDraws; ++i) {
    const double u = stream.uniform(i);
    mean += u / kDraws;
    square += u * u / kDraws;
    lag += (u - 0.5) * (stream.uniform(i + 1) - 0.5) / kDraws;
    smallest = std::min(smallest, u);
    largest = std::max(largest, u);
  }
  EXPECT_NEAR(mean, 1.0 / 2, bound(1.0 / 12));
  EXPECT_NEAR(square, 1.0 / 3, bound(4.0 / 45));
  EXPECT_NEAR(lag, 0, bound(1.0 / 144)) << "neighbours are correlated";
  EXPECT_GE(smallest, 0.0);
  EXPECT_LT(smallest, 1e-3);
  EXPECT_LT(largest, 1.0);
  EXPECT_GT(largest, 1 - 1e-3);
}

TEST(RandomStream, UniformUses53Bits) {
  const RandomStream stream({.seed = 42});
  bool fine = false;
  for (uint64_t i = 0; i < 64; ++i) {
    const double scaled = stream.uniform(i) * 0x1.0p53;
    EXPECT_EQ(scaled, std::floor(scaled));
    fine = fine || std::fmod(scaled, 2.0) == 1.0;
  }
  EXPECT_TRUE(fine) << "the lowest bit is never set";
}

TEST(RandomStream, NormalMoments) {
  const RandomStream stream({.seed = 43});
  double mean = 0, variance = 0, skew = 0, fourth = 0;
  for (uint64_t i = 0; i < kDraws; ++i) {
    const double z = stream.normal(i);
    ASSERT_TRUE(std::isfinite(z));
    mean += z / kDraws;
    variance += z * z / kDraws;
    skew += z * z * z / kDraws;
    fourth += z * z * z * z / kDraws;
  }
  EXPECT_NEAR(mean, 0, bound(1));
  EXPECT_NEAR(variance, 1, bound(2));
  EXPECT_NEAR(skew, 0, bound(15));
  EXPECT_NEAR(fourth, 3, bound(96));
}

TEST(RandomStream, SamplesAreDistinctAndInRange) {
  const RandomStream stream({.seed = 44, .purpose = Purpose::kmeans_init});
  for (const auto& [range, count] :
       {std::pair<int64_t, int64_t>{1000000, 5000}, {10, 10}, {7, 1}, {1, 1}, {5, 0}, {0, 0}}) {
    const std::vector<int64_t> sample = stream.sample_without_replacement(range, count);
    EXPECT_EQ(static_cast<int64_t>(sample.size()), count);
    EXPECT_EQ(static_cast<int64_t>(std::set<int64_t>(sample.begin(), sample.end()).size()), count);
    EXPECT_THAT(sample, testing::Each(testing::AllOf(testing::Ge(0), testing::Lt(range))));
  }
  EXPECT_THROW(stream.sample_without_replacement(3, 4), InternalError);
}

TEST(RandomStream, SamplesAreUniform) {
  // Every value is equally likely at every place: 6 values x 3 places, 12000 samples, 5 standard deviations.
  constexpr int kSamples = 12000, kRange = 6, kCount = 3;
  std::vector<int> seen(kRange * kCount);
  for (uint64_t s = 0; s < kSamples; ++s) {
    const std::vector<int64_t> sample = RandomStream({.seed = 45, .id = s}).sample_without_replacement(kRange, kCount);
    for (size_t place = 0; place < kCount; ++place) ++seen[place * kRange + static_cast<size_t>(sample[place])];
  }
  const double expected = kSamples / 6.0, deviation = std::sqrt(kSamples * (1.0 / 6) * (5.0 / 6));
  for (const int count : seen) EXPECT_NEAR(count, expected, 5 * deviation);
}

TEST(HashName, IsFnv1a) {
  EXPECT_EQ(hash_name(""), 0xcbf29ce484222325ULL);
  EXPECT_EQ(hash_name("a"), 0xaf63dc4c8601ec8cULL);
  EXPECT_EQ(hash_name("foobar"), 0x85944171f73967e8ULL);
}

}  // namespace
}  // namespace qn
