// Dropout and noise draw the bits that the documentation promises: recomputed here from single Philox blocks.
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "ops/cpu/philox_lanes.h"
#include "ops/ops.h"
#include "ops/sequences.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

constexpr RandomKey kKey{.seed = 5, .purpose = Purpose::dropout, .id = 17, .update = 9, .micro_batch = 3};
constexpr double kSigmas = 5.0;  // deviations beyond this are a bug, not bad luck

/// The rule of ops/keep_bits.h: element 32 w + 2 lane + half of group g is that 16-bit half of word w of block
/// 16 g + lane, kept when it is at least p * 2^16.
bool keeps(const RandomKey& key, int64_t element, double p) {
  const auto group = static_cast<uint64_t>(element / 128), rest = static_cast<uint64_t>(element % 128);
  const uint64_t block = group * 16 + rest % 32 / 2;
  const Philox4 words =
      philox4x32({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), key.update, key.micro_batch},
                 RandomStream(key).key());
  const uint32_t half = words[rest / 32] >> (16 * (rest % 2)) & 0xffff;
  return half >= std::min(65535.0, std::floor(p * 65536 + 0.5));
}

std::vector<uint64_t> keep_words_of(int64_t n, double p, const RandomKey& key) {
  std::vector<uint64_t> bits(static_cast<size_t>(keep_words(n)));
  cpu_kernels().keep_bits(bits.data(), n, p, key);
  return bits;
}

bool bit(const std::vector<uint64_t>& words, int64_t i) {
  return ((words[static_cast<size_t>(i / 64)] >> (i % 64)) & 1) != 0;
}

/// Whether `successes` of n fit the probability.
testing::AssertionResult plausible(int64_t successes, int64_t n, double probability) {
  const double mean = probability * static_cast<double>(n), deviation = std::sqrt(mean * (1.0 - probability));
  if (std::abs(static_cast<double>(successes) - mean) <= kSigmas * deviation) return testing::AssertionSuccess();
  return testing::AssertionFailure() << successes << " of " << n << ", expected " << mean << " +- " << deviation;
}

TEST(KeepBits, FollowTheDocumentedRule) {
  for (const double p : {0.0, 1e-6, 0.1, 0.5, 0.77, 0.999, 0.9999999}) {
    constexpr int64_t kElements = 1000;  // no multiple of a group
    const auto words = keep_words_of(kElements, p, kKey);
    for (int64_t i = 0; i < kElements; ++i)
      ASSERT_EQ(bit(words, i), keeps(kKey, i, p)) << "p " << p << ", element " << i;
  }
}

TEST(KeepBits, FollowTheRuleBeyondFourBillionBlocks) {
  const int64_t group = (int64_t{1} << 28) + 3;  // block numbers need more than 32 bits from here on
  std::vector<uint64_t> words(2);
  cpu::keep_bits_group(words.data(), group, drop_threshold(0.4), RandomStream(kKey));
  for (int64_t i = 0; i < 128; ++i) ASSERT_EQ(bit(words, i), keeps(kKey, group * 128 + i, 0.4)) << i;
}

TEST(KeepBits, HaveTheRightRate) {
  constexpr int64_t kElements = int64_t{1} << 20;
  for (const double p : {0.01, 0.1, 0.3, 0.5, 0.9}) {
    int64_t kept = 0;
    for (const uint64_t word : keep_words_of(kElements, p, kKey)) kept += std::popcount(word);
    EXPECT_TRUE(plausible(kept, kElements, 1.0 - p)) << "p " << p;
  }
}

TEST(KeepBits, OfDifferentKeysAreIndependent) {
  constexpr int64_t kElements = int64_t{1} << 18;
  constexpr double kRate = 0.3;
  const auto words = keep_words_of(kElements, kRate, kKey);
  std::vector<RandomKey> others(5, kKey);
  others[0].seed++;
  others[1].purpose = Purpose::noise;
  others[2].id++;
  others[3].update++;
  others[4].micro_batch++;
  for (const RandomKey& key : others) {
    const auto other = keep_words_of(kElements, kRate, key);
    int64_t equal = 0;
    for (size_t i = 0; i < words.size(); ++i) equal += std::popcount(~(words[i] ^ other[i]));
    EXPECT_TRUE(plausible(equal, kElements, kRate * kRate + (1 - kRate) * (1 - kRate)));
  }
}

TEST(KeepBits, DoNotDependOnTheNumberOfThreads) {
  constexpr int64_t kElements = (int64_t{1} << 17) + 77;
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const auto one = keep_words_of(kElements, 0.2, kKey);
  omp_set_num_threads(4);
  const auto four = keep_words_of(kElements, 0.2, kKey);
  omp_set_num_threads(threads);
  EXPECT_EQ(one, four);
}

/// A pass with the key of kKey.
class Masked : public testing::Test {
 protected:
  Tensor normal(Shape shape, uint64_t id) {
    const Tensor t = tape_.tensor(shape);
    const RandomStream stream({.seed = 1, .id = id});
    for (size_t i = 0; i < t.span<double>().size(); ++i) t.as<double>()[i] = stream.normal(i);
    return t;
  }
  static PassOptions pass(bool training) {
    return {.training = training,
            .recording = false,
            .seed = kKey.seed,
            .update = kKey.update,
            .micro_batch = kKey.micro_batch};
  }

  Arena arena_;
  Tape tape_{cpu_kernels(), arena_, DType::f64, pass(true)};
};

TEST_F(Masked, DropoutScalesWhatItKeeps) {
  const Tensor x = normal({11, 37}, 1);
  const Tensor y = dropout(tape_, {x, nullptr}, {0.3, kKey.id}).value;
  for (int64_t i = 0; i < x.elements(); ++i)
    ASSERT_DOUBLE_EQ(y.as<double>()[i], keeps(kKey, i, 0.3) ? x.as<double>()[i] / 0.7 : 0.0) << i;
}

TEST_F(Masked, DropoutIsInactiveOutsideTraining) {
  const Tensor x = normal({11, 37}, 1);
  Tape tape(cpu_kernels(), arena_, DType::f64, pass(false));
  EXPECT_EQ(dropout(tape, {x, nullptr}, {0.3, kKey.id}).value.data, x.data);
}

using Ids = std::vector<int32_t>;

/// A call of attention in words: sequence b's queries and keys are rows of these matrices.
struct AttentionCall {
  Tensor q, kv;  ///< as of Kernels::attention
  Sequences queries, keys;
  int64_t heads, dim;
  bool causal;
  double p;
};

/// Plain loops, with the mask's element where AttentionArgs says it is.
std::vector<double> naive_attention(const AttentionCall& call) {
  const int64_t width = call.heads * call.dim, padded = (call.keys.longest + 127) / 128 * 128;
  std::vector<double> out(static_cast<size_t>(call.q.rows() * width), 0.0);
  const auto add_query = [&](size_t b, int64_t h, int64_t i) {
    const auto query = (call.queries.begins[b] + i) * call.q.cols() + h * call.dim;
    const auto key = [&](size_t k) {
      return (call.keys.begins[b] + static_cast<int64_t>(k) + 1) * call.kv.cols() - 2 * width + h * call.dim;
    };
    const auto *q = call.q.as<double>() + query, *kv = call.kv.as<double>();
    std::vector<double> weight(static_cast<size_t>(call.causal ? i + 1 : call.keys.lengths[b]));
    double sum = 0.0;
    for (size_t k = 0; k < weight.size(); ++k) {
      double score = 0.0;
      for (int64_t c = 0; c < call.dim; ++c) score += q[c] * kv[key(k) + c];
      sum += weight[k] = std::exp(score / std::sqrt(static_cast<double>(call.dim)));
    }
    for (size_t k = 0; k < weight.size(); ++k) {
      const int64_t row = (static_cast<int64_t>(b) * call.heads + h) * call.queries.longest + i;
      const bool kept = keeps(kKey, row * padded + static_cast<int64_t>(k), call.p);
      const double factor = kept ? weight[k] / sum / (1.0 - call.p) : 0.0;
      for (int64_t c = 0; c < call.dim; ++c)
        out[static_cast<size_t>((call.queries.begins[b] + i) * width + h * call.dim + c)] +=
            factor * kv[key(k) + width + c];
    }
  };
  for (size_t b = 0; b < call.queries.begins.size(); ++b)
    for (int64_t h = 0; h < call.heads; ++h)
      for (int64_t i = 0; i < call.queries.lengths[b]; ++i) add_query(b, h, i);
  return out;
}

struct AttentionShape {
  int64_t batch, time, heads, dim;
};

TEST_F(Masked, AttentionDropsTheDocumentedElements) {
  for (const AttentionShape s : {AttentionShape{2, 7, 2, 5}, {1, 1, 3, 4}, {2, 131, 2, 3}})
    for (const bool causal : {true, false})
      for (const double p : {0.0, 0.35}) {
        const Tensor qkv = normal({s.batch * s.time, 3 * s.heads * s.dim}, 2);
        const Var y = attention(tape_, {qkv, nullptr}, s.batch, s.time, s.heads, causal, {p, kKey.id});
        Ids begins, lengths(static_cast<size_t>(s.batch), static_cast<int32_t>(s.time));
        for (int64_t b = 0; b < s.batch; ++b) begins.push_back(static_cast<int32_t>(b * s.time));
        const Sequences all{begins, lengths, s.time};
        const std::vector<double> expected = naive_attention({qkv, qkv, all, all, s.heads, s.dim, causal, p});
        EXPECT_TRUE(close(y.value.span<double>(), expected, kDoubleTolerance))
            << "time " << s.time << (causal ? " causal" : " full") << " p " << p;
        const Var same = attention(tape_, {qkv, nullptr}, all, s.heads, causal, {p, kKey.id});
        EXPECT_TRUE(std::ranges::equal(same.value.span<double>(), y.value.span<double>()));
      }
}

TEST_F(Masked, AttentionOfSequencesDropsTheDocumentedElements) {
  // Row 0 and the rows from 6 to 9 are nobody's. The second sequence has keys but no queries.
  const Ids begins{10, 6, 1}, lengths{150, 0, 5}, key_begins{0, 8, 11}, key_lengths{7, 2, 131};
  const Sequences queries{begins, lengths, 150}, keys{key_begins, key_lengths, 131};
  for (const double p : {0.0, 0.35}) {
    for (const bool causal : {true, false}) {
      const Tensor qkv = normal({160, 3 * 6}, 2);
      const Var y = attention(tape_, {qkv, nullptr}, queries, 2, causal, {p, kKey.id});
      const std::vector<double> expected = naive_attention({qkv, qkv, queries, queries, 2, 3, causal, p});
      EXPECT_TRUE(close(y.value.span<double>(), expected, kDoubleTolerance)) << p << (causal ? " causal" : " full");
    }
    const Tensor q = normal({160, 6}, 2), kv = normal({142, 2 * 6}, 3);
    const Var y = cross_attention(tape_, {q, nullptr}, {kv, nullptr}, queries, keys, 2, {p, kKey.id});
    const std::vector<double> expected = naive_attention({q, kv, queries, keys, 2, 3, false, p});
    EXPECT_TRUE(close(y.value.span<double>(), expected, kDoubleTolerance)) << p;
  }
}

TEST_F(Masked, NoiseDropsWholeBlocksAndScalesTheRest) {
  constexpr int64_t kRows = 60, kCols = 64, kBlock = 8;
  constexpr double kRate = 0.25;
  const Tensor w = normal({kRows, kCols}, 3);
  const std::vector<double> clean(w.span<double>().begin(), w.span<double>().end());
  const Var noisy = block_noise(tape_, {w, nullptr}, kBlock, kRate, kKey.id);
  RandomKey key = kKey;
  key.purpose = Purpose::noise;
  int64_t dropped = 0;
  for (int64_t i = 0; i < w.elements(); ++i) {
    const bool kept = keeps(key, i / kBlock, kRate);  // blocks are numbered along the rows
    ASSERT_DOUBLE_EQ(noisy.value.as<double>()[i], kept ? clean[static_cast<size_t>(i)] / (1.0 - kRate) : 0.0) << i;
    dropped += kept ? 0 : 1;
  }
  EXPECT_TRUE(plausible(dropped / kBlock, kRows * kCols / kBlock, kRate));
  EXPECT_TRUE(std::equal(clean.begin(), clean.end(), w.as<double>())) << "the master weight was written";
}

TEST_F(Masked, ReplaceBlocksReplacesTheDocumentedBlocks) {
  constexpr int64_t kRows = 60, kCols = 64, kBlock = 4, kCodes = 37;
  constexpr double kRate = 0.25, kScale = 1.5;
  const Tensor w = normal({kRows, kCols}, 5), values = normal({kCodes, kBlock}, 6);
  std::vector<uint16_t> codes;
  for (int64_t b = 0; b < w.elements() / kBlock; ++b) codes.push_back(static_cast<uint16_t>(b * 7919 % kCodes));
  RandomKey key = kKey;
  key.purpose = Purpose::noise;
  for (const bool clusters : {false, true})
    for (const double rate : {kRate, 1.0}) {
      BlockReplacement how{.values = values, .codes = codes.data(), .p = rate, .scale = kScale, .id = kKey.id};
      if (clusters) how.clusters = kCodes;
      const Var noisy = replace_blocks(tape_, {w, nullptr}, how);
      int64_t dropped = 0;
      for (int64_t i = 0; i < w.elements(); ++i) {
        const int64_t block = i / kBlock, code = codes[static_cast<size_t>(block)];
        const bool kept = rate < 1.0 && keeps(key, clusters ? code : block, rate);
        ASSERT_EQ(noisy.value.as<double>()[i],
                  kept ? kScale * w.as<double>()[i] : values.as<double>()[code * kBlock + i % kBlock])
            << i;
        dropped += kept ? 0 : 1;
      }
      EXPECT_TRUE(rate < 1.0 || dropped == w.elements());
      EXPECT_TRUE(rate == 1.0 || clusters || plausible(dropped / kBlock, kRows * kCols / kBlock, rate));
      EXPECT_GT(dropped, 0);
    }
}

TEST_F(Masked, FakeQuantizeQuantizesTheDocumentedBlocks) {
  constexpr int64_t kRows = 60, kCols = 64;
  constexpr double kRate = 0.25;
  const Tensor x = normal({kRows, kCols}, 4);
  std::vector<double> scale{0.25}, zero_point{7.0};
  const auto run = [&](double p, int64_t block, uint64_t id) {
    const FakeQuantize how{.scale = view_of(scale.data(), {1}),
                           .zero_point = view_of(zero_point.data(), {1}),
                           .bits = 4,
                           .p = p,
                           .block = block,
                           .id = id};
    return fake_quantize(tape_, {x, nullptr}, how).value.span<double>();
  };
  RandomKey key = kKey;
  key.purpose = Purpose::noise;
  const auto all = run(1.0, 1, kKey.id), none = run(0.0, 1, kKey.id);
  for (const int64_t block : {1, 8, 64}) {
    const auto y = run(kRate, block, kKey.id);
    int64_t quantized = 0;
    for (int64_t i = 0; i < x.elements(); ++i) {
      const bool kept = keeps(key, i / block, kRate);
      const auto e = static_cast<size_t>(i);
      ASSERT_EQ(y[e], kept ? none[e] : all[e]) << "block " << block << ", element " << i;
      quantized += kept ? 0 : 1;
    }
    EXPECT_TRUE(plausible(quantized / block, x.elements() / block, kRate));
  }
  const auto other = run(1.0, 1, kKey.id + 1);
  EXPECT_TRUE(std::equal(all.begin(), all.end(), other.begin())) << "random numbers in what is not random";
}

TEST_F(Masked, NoiseIsInactiveOutsideTraining) {
  const Tensor w = normal({4, 8}, 3);
  Tape tape(cpu_kernels(), arena_, DType::f64, pass(false));
  EXPECT_EQ(block_noise(tape, {w, nullptr}, 8, 0.5, 1).value.data, w.data);
  EXPECT_EQ(replace_blocks(tape, {w, nullptr}, {.values = normal({1, 8}, 4), .p = 0.5}).value.data, w.data);
}

}  // namespace
}  // namespace qn::test
