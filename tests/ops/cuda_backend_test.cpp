// What the program says where there is no GPU, or no CUDA in the build; on a GPU machine, that it finds the device.
#include <gmock/gmock.h>

#include "ops/cuda/backend.h"

namespace qn::test {
namespace {

TEST(CudaBackend, EitherHasADeviceOrSaysWhyNot) {
  std::cout << (cuda_device_count() > 0 ? "GPUs found" : cuda_problem()) << '\n';
  EXPECT_EQ(cuda_device_count() == 0, !cuda_problem().empty());
}

TEST(CudaBackend, WithoutADeviceItsUseIsAClearError) {
  if (cuda_device_count() > 0) GTEST_SKIP() << "this machine has a GPU";
  const auto says_why = testing::ThrowsMessage<Error>(testing::StrEq(cuda_problem()));
  EXPECT_THAT([] { cuda_kernels(); }, says_why);
  EXPECT_THAT([] { select_cuda_device(0); }, says_why);
}

TEST(CudaBackend, RefusesDevicesThatAreNotThere) {
  EXPECT_THROW(select_cuda_device(cuda_device_count()), Error);
  EXPECT_THROW(select_cuda_device(-1), Error);
}

TEST(CudaBackend, HasMemoryOfItsOwn) {
  if (cuda_device_count() == 0) GTEST_SKIP() << cuda_problem();
  EXPECT_STREQ(cuda_kernels().backend, "cuda");
  EXPECT_NE(cuda_kernels().memory, &host_memory());
}

}  // namespace
}  // namespace qn::test
