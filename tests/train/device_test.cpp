#include "train/device.h"

#include <gmock/gmock.h>

#include "ops/cuda/backend.h"
#include "ops/profiled_kernels.h"

namespace qn::test {
namespace {

using testing::AllOf, testing::HasSubstr, testing::ThrowsMessage;

TEST(LocalRank, CountsTheRanksOfOneMachine) {
  const std::vector<std::string> hosts{"a", "b", "a", "a", "b"};
  const std::vector<std::pair<int, int>> expected{{0, 3}, {0, 2}, {1, 3}, {2, 3}, {1, 2}};
  for (int r = 0; r < 5; ++r) {
    const LocalRank local = local_rank(hosts, r);
    EXPECT_EQ(std::pair(local.rank, local.size), expected[static_cast<size_t>(r)]) << r;
  }
}

TEST(GpuOf, GivesEveryRankItsOwn) {
  for (int r = 0; r < 4; ++r) EXPECT_EQ(gpu_of({r, 4}, 4, false), r);
  EXPECT_EQ(gpu_of({1, 2}, 8, false), 1);
}

TEST(GpuOf, RefusesToShareUnlessAsked) {
  EXPECT_THAT(
      [] {
        gpu_of({0, 4}, 2, false);
      },
      ThrowsMessage<Error>(AllOf(HasSubstr("4 ranks"), HasSubstr("2 GPUs"), HasSubstr("--share-gpu"))));
  EXPECT_EQ(gpu_of({3, 4}, 2, true), 1);
}

TEST(Device, IsThatOfTheMemory) {
  const Device cpu(cpu_kernels());
  EXPECT_TRUE(cpu.on_host());
  EXPECT_FALSE(cpu.is_cuda());
  EXPECT_FALSE(cpu.memory().has_value());
  EXPECT_EQ(cpu.stream(), nullptr);
  EXPECT_FALSE(cpu.has_fp16());
  Profiler profiler;
  EXPECT_TRUE(Device(profiled_kernels(cpu_kernels(), profiler)).on_host()) << "a table that wraps another one";

  const Memory elsewhere{"elsewhere", host_memory().allocate, host_memory().release};
  Kernels other = cpu_kernels();
  other.memory = &elsewhere;
  EXPECT_FALSE(Device(other).on_host());
  EXPECT_FALSE(Device(other).is_cuda());
  EXPECT_FALSE(Device(other).memory().has_value());
  EXPECT_TRUE(Device(other).multiplies_bf16());
}

TEST(Device, TellsWhatAGpuHas) {
  if (cuda_device_count() == 0) GTEST_SKIP() << cuda_problem();
  Profiler profiler;
  for (const Kernels* kernels : {&cuda_kernels(), &profiled_kernels(cuda_kernels(), profiler)}) {
    const Device gpu(*kernels);
    EXPECT_TRUE(gpu.is_cuda());
    ASSERT_TRUE(gpu.memory().has_value());
    EXPECT_GT(gpu.memory()->total, 0U);
    EXPECT_LE(gpu.memory()->free, gpu.memory()->total);
    EXPECT_EQ(gpu.stream(), cuda_stream());
  }
}

TEST(KernelsOn, SaysWhyThereIsNoGpu) {
  const auto comm = make_local_communicator();
  EXPECT_EQ(&kernels_on(DeviceKind::cpu, false, *comm), &cpu_kernels());
  if (cuda_device_count() > 0)
    EXPECT_STREQ(kernels_on(DeviceKind::cuda, false, *comm).backend, "cuda");
  else
    EXPECT_THAT([&] { kernels_on(DeviceKind::cuda, false, *comm); }, ThrowsMessage<Error>(HasSubstr(cuda_problem())));
}

}  // namespace
}  // namespace qn::test
