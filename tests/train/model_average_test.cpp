// Moving averages against timm's, and what becomes of them beside a module.
#include "train/model_average.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/hdf5_file.h"
#include "support/golden.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

/// A weight, running statistics, and a buffer that is no such thing.
class Net : public Module {
 public:
  Net(Shape weight, Shape statistic) {
    w = root().parameter("w", weight, {});
    mean = root().buffer("running_mean", statistic, 0.0);
    range = root().buffer("range", {2}, 0.0);
    range->averaged = false;
    allocate(DType::f32, cpu_kernels());
  }
  Parameter* w;
  ModuleBuffer *mean, *range;
};

void write(const Tensor& to, std::span<const float> from) {
  ASSERT_EQ(to.elements(), std::ssize(from));
  std::copy(from.begin(), from.end(), to.as<float>());
}

std::vector<float> values(const Tensor& x) { return {x.span<float>().begin(), x.span<float>().end()}; }

TEST(ModelAverageGolden, EveryCase) {
  QN_GOLDEN(path, "efficientnet.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  int warmups = 0;
  const std::vector<std::string> cases = file.members("ema");
  ASSERT_GE(cases.size(), 3u);
  for (const std::string& name : cases) {
    SCOPED_TRACE(name);
    const std::string group = "ema/" + name + "/";
    Net net(file.shape(group + "w0"), file.shape(group + "running_mean0"));
    write(net.w->value, file.read<float>(group + "w0"));
    write(net.mean->value.view(), file.read<float>(group + "running_mean0"));
    const EmaConfig config{.decay = file.float_attribute("ema/" + name, "decay_max"),
                           .warmup = file.int_attribute("ema/" + name, "use_warmup") != 0,
                           .start_update = file.int_attribute("ema/" + name, "update_after_step")};
    warmups += config.warmup ? 1 : 0;
    ModelAverage average(net);
    const auto decay = file.read<double>(group + "decay");
    for (size_t t = 0; t < decay.size(); ++t) {
      if (file.int_attribute("ema/" + name, "uses_step") != 0) {
        EXPECT_TRUE(close(config.decay_at(static_cast<int64_t>(t)), decay[t], kScheduleTolerance));
      }
      const auto entry = [&](const std::string& of, const Tensor& like) {
        const auto all = file.read<float>(group + of);
        const auto begin = all.begin() + static_cast<int64_t>(t) * like.elements();
        return std::vector<float>(begin, begin + like.elements());
      };
      write(net.w->value, entry("w", net.w->value));
      write(net.mean->value.view(), entry("running_mean", net.mean->value.view()));
      average.add(decay[t]);
      const AveragesInPlace in_place(&average);
      EXPECT_TRUE(close(values(net.w->value), entry("ema_w", net.w->value), kOptimizerTolerance)) << t;
      EXPECT_TRUE(
          close(values(net.mean->value.view()), entry("ema_running_mean", net.mean->value.view()), kOptimizerTolerance))
          << t;
    }
  }
  EXPECT_GE(warmups, 1);
}

TEST(ModelAverage, ChangesPlacesAndIsSavedBesideTheModule) {
  Net net({2, 3}, {2});
  const Kernels& k = cpu_kernels();
  ModelAverage average(net);
  k.fill(net.w->value, 8.0);
  k.fill(net.mean->value.view(), 4.0);
  k.fill(net.range->value.view(), 2.0);
  average.add(0.75);
  StateDict state;
  {
    const AveragesInPlace in_place(&average);
    EXPECT_EQ(values(net.w->value), std::vector<float>(6, 2.0f));
    EXPECT_EQ(values(net.mean->value.view()), std::vector<float>(2, 1.0f));
    EXPECT_EQ(values(net.range->value.view()), std::vector<float>(2, 2.0f)) << "no statistic: as training has it";
    EXPECT_FALSE(holds_averages(state));
    save_module(net, state);
    average.save(kTrained, state);
    EXPECT_TRUE(holds_averages(state));
  }
  EXPECT_EQ(values(net.w->value), std::vector<float>(6, 8.0f));
  EXPECT_FALSE(state.tensors.contains("trained/buffers/range"));

  Net other({2, 3}, {2});
  load_module(other, state);
  ModelAverage loaded(other);
  loaded.load(kTrained, state);
  loaded.exchange();
  EXPECT_EQ(values(other.w->value), std::vector<float>(6, 8.0f));
  EXPECT_EQ(values(other.mean->value.view()), std::vector<float>(2, 4.0f));
  loaded.exchange();
  EXPECT_EQ(values(other.w->value), std::vector<float>(6, 2.0f));
  EXPECT_EQ(values(other.mean->value.view()), std::vector<float>(2, 1.0f));

  Net larger({4, 3}, {2});
  EXPECT_THAT([&] { ModelAverage(larger).load(kTrained, state); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("trained/parameters/w is f32")));
}

}  // namespace
}  // namespace qn::test
