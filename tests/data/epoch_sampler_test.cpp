#include "data/epoch_sampler.h"

#include <algorithm>
#include <random>

#include "core/hdf5_file.h"
#include "data_test_util.h"
#include "support/golden.h"

namespace qn::test {
namespace {

using testing::HasSubstr;
using Lists = std::vector<std::vector<int64_t>>;

/// `count` batches of one to three items; every item number appears once.
BatchList some_batches(int count) {
  BatchList batches;
  int64_t next = 0;
  for (int b = 0; b < count; ++b) {
    std::vector<int64_t> items;
    for (int i = 0; i <= b % 3; ++i) items.push_back(next++);
    batches.push_back(items);
  }
  return batches;
}

TEST(EpochSampler, EpochsEqualTheReference) {
  QN_GOLDEN(path, "data.h5");
  const Hdf5File golden(path, Hdf5File::Mode::read);
  int groups = 0;
  for (const std::string& name : golden.members("epochs")) {
    const std::string group = "epochs/" + name;
    if (!golden.is_group(group) || !golden.has_attribute(group, "rank")) continue;
    SCOPED_TRACE(name);
    const int64_t seed = golden.int_attribute(group, "seed"), world = golden.int_attribute(group, "world");
    const int64_t rank = golden.int_attribute(group, "rank");
    const std::string suffix = "_seed" + std::to_string(seed);
    BatchList frozen;
    for (const auto& batch : cut(golden.read<int64_t>("epochs/frozen_items" + suffix),
                                 golden.read<int64_t>("epochs/frozen_batch_sizes" + suffix))) {
      frozen.push_back(batch);
    }
    EpochSampler sampler(frozen, static_cast<uint64_t>(seed));
    sampler.restore({golden.int_attribute(group, "epoch"), 0, 0});
    Lists mine;
    do {
      const Lists update = sampler.next_update(world);
      mine.push_back(rank < std::ssize(update) ? update[static_cast<size_t>(rank)] : std::vector<int64_t>{});
    } while (!sampler.end_of_epoch());
    EXPECT_EQ(mine, cut(golden.read<int64_t>(group + "/items"), golden.read<int64_t>(group + "/batch_sizes")));
    ++groups;
  }
  EXPECT_GT(groups, 0);
}

TEST(EpochSampler, EveryItemOncePerEpochForAnyGroupAndWorld) {
  const BatchList batches = some_batches(23);
  for (int64_t group = 1; group <= 25; ++group) {
    for (const int64_t world : {1, 2, 3, 4}) {
      EpochSampler sampler(batches, 5);
      for (int64_t epoch = 1; epoch <= 3; ++epoch) {
        std::vector<int64_t> seen;
        int64_t updates = 0;
        do {
          const Lists update = sampler.next_update(group);
          ++updates;
          ASSERT_GE(std::ssize(update), 1);
          ASSERT_LE(std::ssize(update), group);
          for (int64_t rank = 0; rank < world; ++rank) {
            for (int64_t i = rank; i < std::ssize(update); i += world) {
              const auto& items = update[static_cast<size_t>(i)];
              seen.insert(seen.end(), items.begin(), items.end());
            }
          }
        } while (!sampler.end_of_epoch());
        EXPECT_EQ(updates, sampler.updates_per_epoch(group));
        EXPECT_EQ(sampler.state(), (SamplerState{epoch, 23, epoch * batches.items()}));
        std::sort(seen.begin(), seen.end());
        ASSERT_EQ(std::ssize(seen), batches.items());
        for (int64_t i = 0; i < batches.items(); ++i) ASSERT_EQ(seen[static_cast<size_t>(i)], i);
      }
    }
  }
}

TEST(EpochSampler, ResumedAnywhereGoesOnAsIfUninterrupted) {
  const BatchList batches = some_batches(11);
  for (const int64_t group : {1, 3, 4, 20}) {
    EpochSampler whole(batches, 9);
    std::vector<SamplerState> states = {whole.state()};
    std::vector<Lists> updates;
    for (int u = 0; u < 40; ++u) {
      updates.push_back(whole.next_update(group));
      states.push_back(whole.state());
    }
    for (size_t at = 0; at < states.size(); ++at) {
      EpochSampler resumed(batches, 9);
      resumed.next_update(2);  // whatever it did before does not matter
      resumed.restore(states[at]);
      for (size_t u = at; u < updates.size(); ++u) ASSERT_EQ(resumed.next_update(group), updates[u]) << at;
      ASSERT_EQ(resumed.state(), whole.state());
    }
  }
}

TEST(EpochSampler, TheOrderDoesNotDependOnTheGroupSize) {
  const BatchList batches = some_batches(11);
  const auto order = [&](int64_t group) {
    EpochSampler sampler(batches, 9);
    Lists all;
    while (all.size() < 33) {
      for (auto& items : sampler.next_update(group)) all.push_back(std::move(items));
    }
    return all;
  };
  const Lists one_by_one = order(1);
  EXPECT_EQ(order(4), one_by_one);
  EXPECT_EQ(order(11), one_by_one);
  EXPECT_NE(Lists(one_by_one.begin(), one_by_one.begin() + 11),
            Lists(one_by_one.begin() + 11, one_by_one.begin() + 22));
}

TEST(EpochSampler, NoticesOtherData) {
  EpochSampler sampler(some_batches(11), 9);
  EXPECT_EQ(sampler.fingerprint(), EpochSampler(some_batches(11), 9).fingerprint());
  EXPECT_NE(sampler.fingerprint(), EpochSampler(some_batches(12), 9).fingerprint());
  EXPECT_NE(sampler.fingerprint(), EpochSampler(some_batches(11), 8).fingerprint());
  for (const SamplerState& bad : {SamplerState{0, 0, 0}, SamplerState{1, 12, 0}, SamplerState{1, -1, 0}}) {
    EXPECT_THAT(error_of([&] { sampler.restore(bad); }), HasSubstr("cannot resume"));
  }
  EXPECT_THAT(error_of([] { EpochSampler(BatchList{}, 1); }), HasSubstr("no batches"));
}

}  // namespace
}  // namespace qn::test
