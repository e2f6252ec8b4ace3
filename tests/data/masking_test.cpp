// numpy's generator and fairseq's masking, against what they draw.
#include "data/masking.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "core/hdf5_file.h"
#include "support/golden.h"

namespace qn::test {
namespace {

constexpr int32_t kMask = 299;

TEST(Pcg64, DrawsWhatNumpyDraws) {
  QN_GOLDEN(path, "roberta_train.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  const auto seeds = file.read<int64_t>("pcg64/seeds");
  const auto raw = file.read<int64_t>("pcg64/raw");
  const auto doubles = file.read<double>("pcg64/doubles");
  const size_t count = raw.size() / seeds.size();
  for (size_t s = 0; s < seeds.size(); ++s) {
    Pcg64 bits(static_cast<uint32_t>(seeds[s])), reals(static_cast<uint32_t>(seeds[s]));
    for (size_t i = 0; i < count; ++i) {
      EXPECT_EQ(bits.next64(), static_cast<uint64_t>(raw[s * count + i]));
      EXPECT_EQ(reals.uniform(), doubles[s * count + i]);
    }
  }
  int choices = 0;
  for (const std::string& name : file.members("pcg64")) {
    int64_t n = 0, k = 0;
    if (std::sscanf(name.c_str(), "choice_%ld_%ld", &n, &k) != 2) continue;
    const auto expected = file.read<int64_t>("pcg64/" + name);
    for (size_t s = 0; s < seeds.size(); ++s)
      EXPECT_EQ(Pcg64(static_cast<uint32_t>(seeds[s])).choice(n, k),
                std::vector(expected.begin() + static_cast<int64_t>(s) * k,
                            expected.begin() + static_cast<int64_t>(s + 1) * k))
          << name;
    ++choices;
  }
  EXPECT_GT(choices, 0);
}

/// Large shares of many items are drawn in another way: at least they are distinct, and of all.
TEST(Pcg64, ChoosesFromManyItems) {
  std::vector<int64_t> chosen = Pcg64(3).choice(20'000, 5'000);
  EXPECT_EQ(chosen.size(), 5'000u);
  std::sort(chosen.begin(), chosen.end());
  EXPECT_EQ(std::adjacent_find(chosen.begin(), chosen.end()), chosen.end());
  EXPECT_LT(chosen.front(), 40);
  EXPECT_GT(chosen.back(), 19'960);
  chosen = Pcg64(3).choice(11'000, 11'000);
  std::sort(chosen.begin(), chosen.end());
  std::vector<int64_t> all(11'000);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(chosen, all);
}

TEST(Pcg64, SeedsOfItemsArePythons) {
  QN_GOLDEN(path, "roberta_train.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  const auto inputs = file.read<int64_t>("pcg64/tuple_hash_input"), hashes = file.read<int64_t>("pcg64/tuple_hash"),
             seeds = file.read<int64_t>("pcg64/item_seed");
  for (size_t i = 0; i < hashes.size(); ++i) {
    EXPECT_EQ(python_tuple_hash({inputs[3 * i], inputs[3 * i + 1], inputs[3 * i + 2]}), hashes[i]);
    EXPECT_EQ(item_seed(inputs[3 * i], inputs[3 * i + 1], inputs[3 * i + 2]), seeds[i]);
  }
}

TEST(Masking, IsFairseqs) {
  QN_GOLDEN(path, "roberta_train.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  const auto items = file.read<int32_t>("masking/items");
  const auto offsets = file.read<int64_t>("masking/offsets");
  int samples = 0;
  for (const std::string& name : file.members("masking")) {
    const std::string group = "masking/" + name;
    if (!file.exists(group + "/query")) continue;
    SCOPED_TRACE(group);
    const auto vocabulary = static_cast<size_t>(file.int_attribute(group, "vocab"));
    std::vector<double> weights(vocabulary, 1.0);
    if (file.int_attribute(group, "freq_weighted") != 0) weights = file.read<double>(group + "/counts");
    std::fill_n(weights.begin(), file.int_attribute(group, "nspecial"), 0.0);
    const Masking masking({.mask_prob = file.float_attribute(group, "mask_prob"),
                           .leave_unmasked_prob = file.float_attribute(group, "leave_unmasked_prob"),
                           .random_token_prob = file.float_attribute(group, "random_token_prob"),
                           .mask_id = static_cast<int32_t>(file.int_attribute(group, "mask"))},
                          weights);
    const auto query = file.read<int64_t>(group + "/query");
    const auto source = file.read<int32_t>(group + "/source"), target = file.read<int32_t>(group + "/target");
    const auto width = static_cast<size_t>(file.shape(group + "/source")[1]);
    for (size_t i = 0; i < query.size() / 3; ++i, ++samples) {
      const int64_t number = query[3 * i + 2];
      const auto first = offsets[static_cast<size_t>(number)], last = offsets[static_cast<size_t>(number) + 1];
      const std::span tokens(items.begin() + first, items.begin() + last);
      const Masking::Item item = masking.masked(tokens, query[3 * i], query[3 * i + 1], number);
      EXPECT_EQ(item.source, std::vector(source.begin() + static_cast<int64_t>(i * width),
                                         source.begin() + static_cast<int64_t>(i * width + tokens.size())));
      EXPECT_EQ(item.target, std::vector(target.begin() + static_cast<int64_t>(i * width),
                                         target.begin() + static_cast<int64_t>(i * width + tokens.size())));
    }
  }
  EXPECT_GT(samples, 0);
}

/// Tokens from 4 on; every third one begins a word.
TEST(Masking, WholeWordsShareTheirFate) {
  constexpr int32_t kVocabulary = kMask + 1;
  std::vector<bool> begins(kVocabulary);
  for (int32_t id = 0; id < kVocabulary; ++id) begins[static_cast<size_t>(id)] = id < 4 || id % 3 == 1;
  std::vector<double> weights(kVocabulary, 1.0);
  weights[kMask] = 0.0;  // so that masked tokens can be told from random ones
  const Masking masking({.mask_prob = 0.5, .mask_id = kMask}, weights, begins);
  std::vector<int32_t> tokens{0};
  for (int32_t id = 4; id < 250; ++id) tokens.push_back(id);
  int masked = 0, words = 0;
  for (int64_t number = 0; number < 20; ++number) {
    const Masking::Item item = masking.masked(tokens, 1, 1, number);
    for (size_t i = 0; i < tokens.size(); ++i) {
      const bool guessed = item.target[i] != kPadId;
      EXPECT_EQ(guessed ? item.target[i] : item.source[i], tokens[i]);
      if (begins[static_cast<size_t>(tokens[i])]) {
        ++words;
        masked += guessed ? 1 : 0;
        continue;
      }
      EXPECT_EQ(guessed, item.target[i - 1] != kPadId);
      EXPECT_EQ(item.source[i] == kMask, item.source[i - 1] == kMask);
    }
  }
  EXPECT_NEAR(masked, words / 2, words / 20);
}

}  // namespace
}  // namespace qn::test
