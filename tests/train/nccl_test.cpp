// NCCL between ranks with a GPU each, alone and in training. One rank and one GPU are enough for part of it.
#include <gtest/gtest.h>

#include "ops/cuda/backend.h"
#include "ops/host_access.h"
#include "support/test_comm.h"
#include "support/tolerance.h"
#include "tiny_run.h"
#include "train/device.h"

namespace qn::test {
namespace {

class Nccl : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << cuda_problem();
    if (cuda_device_count() < comm().size() && !device_communicator_may_share())
      GTEST_SKIP() << comm().size() << " ranks, but only " << cuda_device_count() << " GPU(s)";
    select_cuda_device(comm().rank() % cuda_device_count());
    device_ = make_device_communicator(comm(), cuda_stream());
    if (device_ == nullptr) GTEST_SKIP() << "this program was built without NCCL";
  }

  /// The same everywhere; what rank r computes from it is (r + 1) times as large.
  static OwnedTensor numbers(DType dtype, int64_t elements) {
    OwnedTensor host(Shape{elements}, dtype);
    for (int64_t i = 0; i < elements; ++i) {
      const int64_t value = i % 1009 - 300;
      if (dtype == DType::f64)
        host.view().span<double>()[static_cast<size_t>(i)] = static_cast<double>(value);
      else
        host.view().span<float>()[static_cast<size_t>(i)] = static_cast<float>(value);
    }
    return host;
  }
  double own_factor() const { return comm().rank() + 1.0; }
  /// Of the sum over ranks: 1 + 2 + ... + size.
  double total_factor() const { return comm().size() * (comm().size() + 1) / 2.0; }

  const Kernels& kernels() const { return cuda_kernels(); }

  std::unique_ptr<DeviceCommunicator> device_;
};

std::vector<double> to_doubles(const Tensor& t) {
  if (t.dtype == DType::f64) return {t.span<double>().begin(), t.span<double>().end()};
  return {t.span<float>().begin(), t.span<float>().end()};
}

void expect_scaled(const Tensor& values, const Tensor& host, double factor) {
  const std::vector<double> got = to_doubles(values), expected = to_doubles(host);
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], factor * expected[i]) << "element " << i;
}

TEST_F(Nccl, SumsBetweenTheKernelsBeforeAndAfter) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const int64_t elements : {1, 3, 1023, 65537, 1000003}) {
      SCOPED_TRACE(elements);
      const OwnedTensor host = numbers(dtype, elements);
      const OwnedTensor x({elements}, dtype, *kernels().memory), y({elements}, dtype, *kernels().memory);
      upload(kernels(), y.view(), host.view());
      kernels().axpy(x.view(), y.view(), own_factor(), 0);
      device_->start_all_reduce_sum(x.view());
      kernels().fill(y.view(), 0.0);  // beside the sum
      device_->join();
      kernels().axpy(y.view(), x.view(), 2.0, 1);
      expect_scaled(download(kernels(), y.view()).view(), host.view(), 2.0 * total_factor());
    }
  }
}

TEST_F(Nccl, SumsSeveralPiecesOfOneBuffer) {
  constexpr int64_t kElements = 70001, kPiece = 10007;
  const OwnedTensor host = numbers(DType::f32, kElements);
  const OwnedTensor x({kElements, 1}, DType::f32, *kernels().memory);
  upload(kernels(), x.view().reshaped({kElements}), host.view());
  for (int update = 0; update < 3; ++update) {
    if (update > 0) upload(kernels(), x.view().reshaped({kElements}), host.view());
    for (int64_t begin = 0; begin < kElements; begin += kPiece) {
      const Tensor piece = x.view().row_slice(begin, std::min(kPiece, kElements - begin));
      kernels().axpy(piece, piece, own_factor() - 1.0, 1);
      device_->start_all_reduce_sum(piece);
    }
    device_->join();
    expect_scaled(download(kernels(), x.view()).view(), host.view(), total_factor());
  }
}

TEST_F(Nccl, CopiesTheFirstRanksBytes) {
  const OwnedTensor host = numbers(DType::f32, 4099);
  const OwnedTensor x({4099}, DType::f32, *kernels().memory);
  upload(kernels(), x.view(), host.view());
  kernels().axpy(x.view(), x.view(), 6.0 + own_factor(), 0);
  device_->start_broadcast(x.view());
  device_->join();
  expect_scaled(download(kernels(), x.view()).view(), host.view(), 7.0);
}

class NcclTraining : public Nccl {
 protected:
  /// Parameters after a short training of tiny_config().
  std::vector<float> train(const std::filesystem::path& dir, const std::string& name, Communicator& ranks,
                           const std::function<void(CommConfig&)>& adapt = {}) {
    RunConfig config = tiny_config(dir, name);
    config.train.max_updates = 3;
    config.comm.bucket_mib = 4096.0 / (1 << 20);
    if (adapt) adapt(config.comm);
    TinyTrainer trainer(config, ranks,
                        {.quantize = false, .resume = true, .stop_requested = {}, .kernels = &kernels()});
    EXPECT_EQ(trainer.run(), Outcome::finished);
    return parameter_values(trainer.model());
  }
};

TEST_F(NcclTraining, MatchesOneRank) {
  if (comm().size() == 1) GTEST_SKIP() << "needs two ranks: launch/run -n 2";
  TempDir own;
  const std::filesystem::path dir = comm().broadcast_text(own.path().string());
  if (comm().is_root()) prepare_tiny_corpus(dir);
  comm().barrier();
  const auto local = make_local_communicator();
  const auto alone = train(dir, fmt::format("alone_{}", comm().rank()), *local);
  const auto overlapped = train(dir, "overlapped", comm());
  const auto at_end = train(dir, "at_end", comm(), [](CommConfig& c) { c.overlap = false; });
  const auto on_host = train(dir, "on_host", comm(), [](CommConfig& c) { c.nccl = false; });
  constexpr double kTrajectory = 1e-4;  // as in rank_equality_test
  EXPECT_TRUE(close(overlapped, alone, kTrajectory));
  EXPECT_TRUE(close(on_host, alone, kTrajectory));
  EXPECT_EQ(at_end, overlapped);
  const std::string mine(reinterpret_cast<const char*>(overlapped.data()), overlapped.size() * sizeof(float));
  EXPECT_TRUE(comm().broadcast_text(mine) == mine) << "rank " << comm().rank() << " differs from rank 0";
  comm().barrier();
}

TEST(DeviceCommunicator, IsThereForSeveralRanksOnGpusOnly) {
  EXPECT_EQ(device_communicator(cpu_kernels(), comm()), nullptr);
  if (cuda_device_count() == 0) GTEST_SKIP() << cuda_problem();
  const auto local = make_local_communicator();
  EXPECT_EQ(device_communicator(cuda_kernels(), *local), nullptr);
  if (comm().size() == 1) return;
  select_cuda_device(0);  // all ranks on one GPU: not with NCCL, unless it is told to
  EXPECT_EQ(device_communicator(cuda_kernels(), comm()) != nullptr, device_communicator_may_share());
}

}  // namespace
}  // namespace qn::test
