// One suite for every transport: the local communicator when run alone, MPI under launch/run -n 2 and -n 4.
#include "comm/communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <thread>

#include "core/error.h"
#include "core/random.h"
#include "core/text.h"
#include "support/test_comm.h"

namespace qn {
namespace {

using test::comm;

// Sizes around the places where algorithms and protocols change: eager and rendezvous, fewer elements than ranks, odd.
const std::vector<size_t> kSizes = {0, 1, 2, 3, 5, 64, 1023, 4097, 65537, 1000003};

bool same_on_all_ranks(std::span<const std::byte> bytes) {
  const std::vector<std::string> hashes = comm().all_gather(hex64(hash_bytes(bytes.data(), bytes.size())));
  return hashes == std::vector<std::string>(hashes.size(), hashes[0]);
}

template <typename T>
class AllReduce : public testing::Test {};
using ElementTypes = testing::Types<float, double, int64_t>;
TYPED_TEST_SUITE(AllReduce, ElementTypes);

// Small integers: every partial sum is exact in every type, so the result must not depend on the order.
template <typename T>
T exact_value(int rank, size_t i) {
  return static_cast<T>(static_cast<int64_t>(i % 1009) * (rank + 1) - 300 * rank);
}

TYPED_TEST(AllReduce, SumsExactly) {
  for (const size_t size : kSizes) {
    std::vector<TypeParam> values(size), expected(size);
    for (size_t i = 0; i < size; ++i) {
      values[i] = exact_value<TypeParam>(comm().rank(), i);
      for (int r = 0; r < comm().size(); ++r) expected[i] += exact_value<TypeParam>(r, i);
    }
    comm().all_reduce_sum(std::span(values));
    EXPECT_EQ(values, expected) << size << " elements";
  }
}

TYPED_TEST(AllReduce, SumsOneValue) {
  const auto n = static_cast<TypeParam>(comm().size());
  EXPECT_EQ(comm().all_reduce_sum_value(static_cast<TypeParam>(comm().rank() + 1)), n * (n + 1) / 2);
}

template <typename T>
class InexactReduce : public testing::Test {};
using FloatingTypes = testing::Types<float, double>;
TYPED_TEST_SUITE(InexactReduce, FloatingTypes);

/// Values of very different magnitude, so that almost every sum rounds and depends on the order of its terms.
template <typename T>
std::vector<T> rough_values(size_t size) {
  const RandomStream stream({.seed = 11, .id = static_cast<uint64_t>(comm().rank())});
  std::vector<T> values(size);
  for (size_t i = 0; i < size; ++i) {
    values[i] = static_cast<T>(stream.normal(i) * std::exp2(static_cast<double>(i % 24)));
  }
  return values;
}

TYPED_TEST(InexactReduce, EveryRankEndsWithTheSameBits) {
  for (const size_t size : kSizes) {
    std::vector<TypeParam> values = rough_values<TypeParam>(size);
    comm().all_reduce_sum(std::span(values));
    EXPECT_TRUE(same_on_all_ranks(std::as_bytes(std::span(values)))) << size << " elements";
  }
}

TYPED_TEST(InexactReduce, RepeatsGiveTheSameBits) {
  std::vector<TypeParam> first = rough_values<TypeParam>(70001), second = first;
  comm().all_reduce_sum(std::span(first));
  comm().all_reduce_sum(std::span(second));
  EXPECT_EQ(std::memcmp(first.data(), second.data(), first.size() * sizeof(TypeParam)), 0);
}

TYPED_TEST(InexactReduce, BucketsOfOddSizesCoverEverything) {
  constexpr size_t kElements = 100003;
  std::vector<TypeParam> expected(kElements);
  for (size_t i = 0; i < kElements; ++i) {
    for (int r = 0; r < comm().size(); ++r) expected[i] += exact_value<TypeParam>(r, i);
  }
  for (const size_t bucket : {sizeof(TypeParam), size_t{4099}, size_t{262144}, size_t{1} << 30}) {
    const size_t size = bucket == sizeof(TypeParam) ? 17 : kElements;  // one element per call: a few are enough
    std::vector<TypeParam> values(size);
    for (size_t i = 0; i < size; ++i) values[i] = exact_value<TypeParam>(comm().rank(), i);
    all_reduce_in_buckets(comm(), std::span(values), bucket);
    EXPECT_TRUE(std::equal(values.begin(), values.end(), expected.begin())) << "buckets of " << bucket << " bytes";
  }
}

TYPED_TEST(InexactReduce, RoughBucketsEndWithTheSameBits) {
  std::vector<TypeParam> values = rough_values<TypeParam>(300007);
  all_reduce_in_buckets(comm(), std::span(values), 100001);
  EXPECT_TRUE(same_on_all_ranks(std::as_bytes(std::span(values))));
}

TYPED_TEST(InexactReduce, StartedSumsAreCompleteAfterFinish) {
  constexpr size_t kElements = 70001, kPiece = 10007;
  std::vector<TypeParam> values(kElements), expected(kElements);
  for (size_t i = 0; i < kElements; ++i) {
    values[i] = exact_value<TypeParam>(comm().rank(), i);
    for (int r = 0; r < comm().size(); ++r) expected[i] += exact_value<TypeParam>(r, i);
  }
  for (size_t begin = 0; begin < kElements; begin += kPiece) {
    comm().start_all_reduce_sum(std::span(values).subspan(begin, std::min(kPiece, kElements - begin)));
    comm().poll();
  }
  comm().finish_all_reduces();
  EXPECT_EQ(values, expected);
  values = rough_values<TypeParam>(kElements);
  comm().start_all_reduce_sum(std::span(values));
  comm().finish_all_reduces();
  EXPECT_TRUE(same_on_all_ranks(std::as_bytes(std::span(values))));
}

TEST(AllReduce, RejectsBucketsSmallerThanAnElement) {
  std::vector<double> values(3);
  EXPECT_THROW(all_reduce_in_buckets(comm(), std::span(values), 7), Error);
}

TEST(AllReduce, KeepsInfinityAndNan) {
  std::vector<float> values = {comm().is_root() ? std::numeric_limits<float>::infinity() : 1.0f,
                               comm().is_root() ? 1.0f : std::numeric_limits<float>::quiet_NaN()};
  comm().all_reduce_sum(std::span(values));
  EXPECT_EQ(values[0], std::numeric_limits<float>::infinity());
  EXPECT_EQ(std::isnan(values[1]), comm().size() > 1);
}

TEST(AllReduce, TakesMaxima) {
  std::vector<double> values = {static_cast<double>(comm().rank()), -1.5 - comm().rank(),
                                comm().rank() == 0 ? 7.0 : -std::numeric_limits<double>::infinity()};
  comm().all_reduce_max(std::span(values));
  EXPECT_THAT(values, testing::ElementsAre(comm().size() - 1.0, -1.5, 7.0));
}

TEST(Broadcast, CopiesBytesOfAnySize) {
  for (const size_t size : kSizes) {
    std::vector<std::byte> bytes(size);
    for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(comm().is_root() ? i * 7 + 1 : 0);
    comm().broadcast(bytes);
    bool equal = true;
    for (size_t i = 0; i < size; ++i) equal = equal && bytes[i] == static_cast<std::byte>(i * 7 + 1);
    EXPECT_TRUE(equal) << size << " bytes";
  }
}

TEST(Broadcast, CopiesMoreThanTwoGibibytes) {
  if (std::getenv("QN_TEST_LARGE") == nullptr) GTEST_SKIP() << "needs 2.1 GiB per rank: set QN_TEST_LARGE=1";
  std::vector<std::byte> bytes((size_t{1} << 31) + 12345);
  const std::vector<size_t> probes = {0, (size_t{1} << 30) - 1, size_t{1} << 30, (size_t{1} << 31), bytes.size() - 1};
  if (comm().is_root()) {
    for (const size_t probe : probes) bytes[probe] = std::byte{0x5a};
  }
  comm().broadcast(bytes);
  for (const size_t probe : probes) EXPECT_EQ(bytes[probe], std::byte{0x5a}) << "byte " << probe;
}

TEST(Broadcast, CopiesTexts) {
  const std::string root_text = std::string("line\nwith \0 and \xc3\xa9", 18);
  EXPECT_EQ(comm().broadcast_text(comm().is_root() ? root_text : "something else"), root_text);
  EXPECT_EQ(comm().broadcast_text(comm().is_root() ? "" : "something else"), "");
}

TEST(AllGather, CollectsTextsOfDifferentLengthsInRankOrder) {
  const auto text_of = [](int rank) {
    return std::string(static_cast<size_t>(rank) * 1000, static_cast<char>('a' + rank));
  };
  const std::vector<std::string> texts = comm().all_gather(text_of(comm().rank()));
  ASSERT_EQ(texts.size(), static_cast<size_t>(comm().size()));
  for (int r = 0; r < comm().size(); ++r) EXPECT_EQ(texts[static_cast<size_t>(r)], text_of(r));
}

TEST(Barrier, HoldsEveryRankUntilTheLastArrives) {
  // The steady clock is common to all processes of a machine.
  const auto now = [] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  };
  std::this_thread::sleep_for(std::chrono::milliseconds(30 * comm().rank()));
  double last_arrival = now();
  comm().barrier();
  double earliest_departure = -now();
  comm().all_reduce_max(std::span(&last_arrival, 1));
  comm().all_reduce_max(std::span(&earliest_departure, 1));
  EXPECT_LE(last_arrival, -earliest_departure);
}

TEST(Communicator, KnowsItsPlace) {
  EXPECT_GE(comm().rank(), 0);
  EXPECT_LT(comm().rank(), comm().size());
  EXPECT_EQ(comm().is_root(), comm().rank() == 0);
  EXPECT_STREQ(comm().name(), std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr ? "mpi" : "local");
  const auto ranks = static_cast<int64_t>(comm().size());
  EXPECT_EQ(comm().all_reduce_sum_value(int64_t{comm().rank()}), ranks * (ranks - 1) / 2);
}

}  // namespace
}  // namespace qn
