#include "data/batching.h"

#include <algorithm>
#include <numeric>
#include <random>

#include "core/hdf5_file.h"
#include "data/lm_dataset.h"
#include "data/numpy_random.h"
#include "data_test_util.h"
#include "support/golden.h"
#include "support/temp_dir.h"

namespace qn::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::vector<int64_t> iota(int64_t n) {
  std::vector<int64_t> items(static_cast<size_t>(n));
  std::iota(items.begin(), items.end(), 0);
  return items;
}

std::vector<int32_t> random_lengths(size_t n, int longest, uint32_t seed) {
  std::mt19937 engine(seed);
  std::vector<int32_t> lengths(n);
  for (int32_t& length : lengths) length = 1 + static_cast<int32_t>(engine() % static_cast<uint32_t>(longest));
  return lengths;
}

TEST(NumpyRandom, PermutationsEqualTheReference) {
  QN_GOLDEN(path, "data.h5");
  const Hdf5File golden(path, Hdf5File::Mode::read);
  const std::string group = "epochs/numpy_permutations";
  const std::vector<std::string> names = golden.members(group);
  ASSERT_FALSE(names.empty());
  for (const std::string& name : names) {
    const uint64_t seed = std::stoull(name.substr(std::string("seed").size()));
    const auto expected = golden.read<int64_t>(group + "/" + name);
    EXPECT_EQ(numpy_permutation(seed, std::ssize(expected)), expected) << name;
  }
}

TEST(NumpyRandom, SeedsAreLimitedAsInNumpy) {
  EXPECT_EQ(numpy_permutation(UINT32_MAX, 1), std::vector<int64_t>{0});
  EXPECT_TRUE(numpy_permutation(1, 0).empty());
  EXPECT_THAT(error_of([] { numpy_permutation(uint64_t{UINT32_MAX} + 1, 5); }), HasSubstr("below 2^32"));
}

TEST(PackBatches, EqualTheReference) {
  QN_GOLDEN(path, "data.h5");
  const Hdf5File golden(path, Hdf5File::Mode::read);
  const std::vector<std::string> names = golden.members("batches");
  ASSERT_FALSE(names.empty());
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    const std::string group = "batches/" + name;
    const auto lengths = golden.read<int32_t>(group + "/lengths");
    BatchLimits limits{.max_tokens = golden.int_attribute(group, "max_tokens"),
                       .max_items = golden.int_attribute(group, "max_sentences"),
                       .required_multiple = golden.int_attribute(group, "required_multiple"),
                       .drop_last = true};
    const std::vector<int64_t> items = iota(std::ssize(lengths));
    const BatchList batches = pack_batches(items, lengths, limits);
    EXPECT_EQ(to_lists(batches),
              cut(golden.read<int64_t>(group + "/items"), golden.read<int64_t>(group + "/batch_sizes")));
    EXPECT_EQ(batches.size(), golden.int_attribute(group, "n_batches"));
    EXPECT_EQ(std::ssize(items) - batches.items(), golden.int_attribute(group, "n_dropped"));
    limits.drop_last = false;
    EXPECT_EQ(pack_batches(items, lengths, limits).items(), std::ssize(items));
  }
}

TEST(PackBatches, KeepsOrderAndLimitsAndLosesNothing) {
  std::mt19937 engine(3);
  for (int trial = 0; trial < 300; ++trial) {
    const auto n = static_cast<size_t>(engine() % 120);
    const std::vector<int32_t> lengths = random_lengths(n, 30, engine());
    const BatchLimits limits{.max_tokens = engine() % 3 == 0 ? 0 : 30 + static_cast<int64_t>(engine() % 200),
                             .max_items = engine() % 3 == 0 ? 0 : 1 + static_cast<int64_t>(engine() % 20),
                             .required_multiple = 1 + static_cast<int64_t>(engine() % 9)};
    const std::vector<int64_t> items = order_by_length(lengths, engine());
    const BatchList batches = pack_batches(items, lengths, limits);
    std::vector<int64_t> joined;
    for (int64_t b = 0; b < batches.size(); ++b) {
      const auto batch = batches[b];
      ASSERT_FALSE(batch.empty());
      joined.insert(joined.end(), batch.begin(), batch.end());
      const int64_t longest = lengths[static_cast<size_t>(batch.back())];  // sorted by length
      ASSERT_TRUE(limits.max_tokens <= 0 || longest * std::ssize(batch) <= limits.max_tokens);
      ASSERT_TRUE(limits.max_items <= 0 || std::ssize(batch) <= limits.max_items);
    }
    ASSERT_EQ(joined, items);
  }
}

TEST(PackBatches, RefusesWhatCannotFit) {
  const std::vector<int32_t> lengths = {5, 40};
  EXPECT_THAT(error_of([&] { pack_batches(iota(2), lengths, {.max_tokens = 39}); }),
              AllOf(HasSubstr("40 tokens"), HasSubstr("max_tokens=39")));
  EXPECT_THAT(error_of([&] { pack_batches(iota(2), lengths, {.required_multiple = 0}); }),
              HasSubstr("required_multiple"));
}

TEST(OrderByLength, SortsAndBreaksTiesByPermutation) {
  const std::vector<int32_t> lengths = random_lengths(500, 12, 7);
  const std::vector<int64_t> permutation = numpy_permutation(11, 500);
  std::vector<int64_t> expected = iota(500);
  std::sort(expected.begin(), expected.end(), [&](int64_t a, int64_t b) {
    const auto i = static_cast<size_t>(a), j = static_cast<size_t>(b);
    return std::pair(lengths[i], permutation[i]) < std::pair(lengths[j], permutation[j]);
  });
  EXPECT_EQ(order_by_length(lengths, 11), expected);
}

TEST(FreezeBatches, EqualTheReference) {
  QN_GOLDEN(path, "data.h5");
  const Hdf5File golden(path, Hdf5File::Mode::read);
  const TempDir dir;
  const auto sizes = golden.read<int64_t>("epochs/sentence_sizes");
  const LmDataset dataset(std::make_shared<const TokenStream>(make_stream(dir / "t", sizes, count_up(sizes))),
                          {value_named<BreakMode>(golden.string_attribute("epochs", "break_mode"), "break_mode"),
                           golden.int_attribute("epochs", "tokens_per_sample")});
  EXPECT_EQ(dataset.size(), golden.int_attribute("epochs", "n_blocks"));
  EXPECT_EQ(dataset.lengths(), golden.read<int32_t>("epochs/block_sizes"));
  FreezeOptions options;
  options.limits = {.max_tokens = golden.int_attribute("epochs", "max_tokens"),
                    .required_multiple = golden.int_attribute("epochs", "required_multiple"),
                    .drop_last = true};
  options.max_positions = golden.int_attribute("epochs", "max_positions");
  const std::string prefix = "frozen_items_seed";
  int seeds = 0;
  for (const std::string& name : golden.members("epochs")) {
    if (!name.starts_with(prefix)) continue;
    const std::string seed = name.substr(prefix.size());
    SCOPED_TRACE("seed " + seed);
    options.seed = std::stoull(seed);
    EXPECT_EQ(
        to_lists(freeze_batches("train", dataset.lengths(), options)),
        cut(golden.read<int64_t>("epochs/" + name), golden.read<int64_t>("epochs/frozen_batch_sizes_seed" + seed)));
    ++seeds;
  }
  EXPECT_GT(seeds, 0);
}

TEST(FreezeBatches, OverLongItems) {
  const std::vector<int32_t> lengths = {5, 9, 12, 3, 12};
  FreezeOptions options{.limits = {.max_tokens = 20}, .max_positions = 10};
  EXPECT_EQ(freeze_batches("train", lengths, options).items(), 3);
  options.over_long = OverLong::error;
  EXPECT_THAT(error_of([&] { freeze_batches("valid", lengths, options); }),
              AllOf(HasSubstr("valid: 2 of 5 items are longer than 10"), HasSubstr("positions of the model")));
  options.max_positions = 12;
  EXPECT_EQ(freeze_batches("valid", lengths, options).items(), 5);
  options.limits.max_tokens = 11;
  EXPECT_THAT(error_of([&] { freeze_batches("valid", lengths, options); }),
              AllOf(HasSubstr("longer than 11"), HasSubstr("tokens per batch")));
  options = {.limits = {.max_items = 4}, .max_positions = 2};
  EXPECT_THAT(error_of([&] { freeze_batches("train", lengths, options); }), HasSubstr("all are too long"));
}

TEST(FreezeBatches, NeedsALimitAndData) {
  const std::vector<int32_t> lengths = {5, 9};
  EXPECT_THAT(error_of([&] { freeze_batches("train", lengths, {}); }), HasSubstr("without a limit"));
  EXPECT_THAT(error_of([&] { freeze_batches("train", {}, {.limits = {.max_items = 1}}); }), HasSubstr("data is empty"));
}

}  // namespace
}  // namespace qn::test
