// When passes become graphs, and when that is given up; what graphs compute is backend_test's business.
#include "train/graphed_passes.h"

#include <gmock/gmock.h>

#include <utility>

namespace qn::test {
namespace {

/// Graphs that compute nothing: kernels of the CPU that know how many there are.
int alive = 0, abandoned = 0;

constexpr GraphSupport kCounted{.begin = [] {},
                                .end = []() -> void* {
                                  ++alive;
                                  return &alive;
                                },
                                .abandon = [] { ++abandoned; },
                                .launch = [](void*, uint32_t, uint32_t) {},
                                .release = [](void*) { --alive; }};

Kernels counted_kernels() {
  Kernels kernels = cpu_kernels();
  kernels.graphs = &kCounted;
  return kernels;
}

class GraphedPassesTest : public testing::Test {
 protected:
  GraphedPassesTest() { store_.allocate(DType::f32); }
  /// A pass of one kernel on so many numbers.
  void run(int64_t shape) {
    passes_.run({}, [&](Tape& tape) { tape.k.fill(tape.tensor({shape}), 0.0); });
  }
  void expect(int64_t computed, int64_t recorded, int64_t launched) const {
    EXPECT_EQ(passes_.counts().computed, computed);
    EXPECT_EQ(passes_.counts().recorded, recorded);
    EXPECT_EQ(passes_.counts().launched, launched);
  }

  Kernels kernels_ = counted_kernels();
  Arena arena_;
  ParameterStore store_;
  GraphedPasses passes_{kernels_, arena_, DType::f32, store_};
};

TEST_F(GraphedPassesTest, RecordsWhatComesTwiceAndLaunchesItFromThenOn) {
  for (int i = 0; i < 5; ++i)
    for (const int64_t shape : {8, 16}) run(shape);
  expect(2, 2, 8);
  EXPECT_EQ(alive, 2);
}

TEST_F(GraphedPassesTest, GivesUpWherePassesHardlyEverComeAgain) {
  run(1);
  run(1);
  expect(1, 1, 1);
  for (int64_t shape = 2; shape <= 300; ++shape) run(shape);
  EXPECT_EQ(alive, 0);
  run(1);  // there was a graph of it
  expect(301, 1, 1);
}

TEST_F(GraphedPassesTest, TellsOfTheFirstErrorOfARecording) {
  run(8);
  const auto fails = [&] {
    passes_.run({}, [&](Tape& tape) {
      tape.k.fill(tape.tensor({8}), 0.0);
      if (tape.k.backend != std::string("dry run")) throw Error("the first error");
    });
  };
  EXPECT_THAT(fails, testing::ThrowsMessage<Error>(testing::StrEq("the first error")));
  EXPECT_EQ(std::exchange(abandoned, 0), 1);
  EXPECT_EQ(alive, 0);
}

TEST_F(GraphedPassesTest, GoesOnWhereHalfOfThemDo) {
  for (int64_t shape = 2; shape <= 600; ++shape) {
    run(shape);
    run(1);
  }
  expect(600, 1, 598);
  EXPECT_EQ(alive, 1);
}

}  // namespace
}  // namespace qn::test
