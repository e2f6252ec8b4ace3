// The host goes on while a device computes: it waits for nothing of an update but the end of the one before.
#include <gtest/gtest.h>

#include "ops/cuda/backend.h"
#include "streams.h"
#include "train/tiny_run.h"

namespace qn::test {
namespace {

class HostAndDevice : public testing::TestWithParam<CudaGraphs> {};

TEST_P(HostAndDevice, TheHostWaitsOncePerUpdateForTheOneBefore) {
  const TempDir dir;
  prepare_tiny_corpus(dir.path());
  RunConfig config = tiny_config(dir.path(), "run");
  config.train.max_updates = 8;
  config.train.validate_every_updates = 0;
  config.train.validate_every_epochs = 0;
  config.checkpoint.save_every_epochs = 0;
  config.train.cuda_graphs = GetParam();
  std::vector<int64_t> waits, under_way;
  const auto after_update = [&] {
    waits.push_back(emulation::host_waits());
    under_way.push_back(emulation::work_under_way());
    return false;
  };
  const auto local = make_local_communicator();
  TinyTrainer trainer(config, *local,
                      {.quantize = false, .resume = false, .stop_requested = after_update, .kernels = &cuda_kernels()});
  trainer.run();
  ASSERT_EQ(waits.size(), 8U);
  // The first ones ask the system for memory, which waits.
  for (size_t u = 5; u < waits.size(); ++u) {
    EXPECT_EQ(waits[u] - waits[u - 1], 1) << "update " << u + 1;
    EXPECT_GT(under_way[u], 100) << "update " << u + 1 << " was waited for";
  }
}

INSTANTIATE_TEST_SUITE_P(Graphs, HostAndDevice, testing::Values(CudaGraphs::off, CudaGraphs::on),
                         [](const auto& entry) { return std::string(name_of(entry.param)); });

}  // namespace
}  // namespace qn::test
