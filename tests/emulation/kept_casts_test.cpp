// Casts of weights that serve all passes of an update: how many there are, that they are of the weights as they are,
// and that weights side by side become one product.
#include "nn/kept_casts.h"

#include <gtest/gtest.h>

#include "nn/layers/linear.h"
#include "ops/cuda/backend.h"
#include "ops/host_access.h"

namespace qn::test {
namespace {

int copies = 0, products = 0;

Kernels counting_kernels() {
  Kernels kernels = cuda_kernels();
  kernels.copy = [](const Tensor& y, const Tensor& x) {
    ++copies;
    cuda_kernels().copy(y, x);
  };
  kernels.matmul = [](const MatmulArgs& args) {
    ++products;
    cuda_kernels().matmul(args);
  };
  return kernels;
}

class KeptCastsTest : public testing::Test {
 protected:
  static constexpr int64_t kWidth = 16, kRows = 3;

  KeptCastsTest() {
    const Scope root = net_.root();
    for (const char* name : {"q.weight", "k.weight", "v.weight"})
      side_by_side_.push_back(root.linear(name, groups::kAttention, kWidth, kWidth, init::normal(1.0)));
    alone_ = root.linear("alone.weight", groups::kFfn, 5, 3 * kWidth, init::normal(1.0));
    net_.allocate(DType::f32, kernels_);
    net_.parameters().initialize(3);
  }

  struct Counts {
    int copies, products;
    bool operator==(const Counts&) const = default;
  };
  /// Forward and backward; `results_` are the outputs, then the gradient of the input.
  Counts pass() {
    copies = products = 0;
    arena_.reset();
    tape_.restart({.training = true, .recording = true});
    net_.parameters().begin_gradients();
    const Tensor x = tape_.tensor({kRows, kWidth});
    kernels_.fill(x, 0.5);
    GradientSlot slot{{nullptr, x.shape, x.dtype}, false};
    const Var y = linear_concat(tape_, {x, &slot}, side_by_side_, {});
    const Var z = alone_->linear(tape_, y);
    kernels_.fill(tape_.slot(z).grad, 1.0);
    tape_.backward();
    results_ = {bytes_of(z.value), bytes_of(slot.grad)};
    return {copies, products};
  }

  std::vector<uint16_t> bytes_of(const Tensor& t) {
    std::vector<uint16_t> bits(static_cast<size_t>(t.elements()));
    kernels_.download(bits.data(), t.data, t.bytes());
    return bits;
  }

  Kernels kernels_ = counting_kernels();
  Module net_;
  std::vector<Weight*> side_by_side_;
  Weight* alone_ = nullptr;
  Arena arena_{*kernels_.memory};
  Tape tape_{kernels_, arena_, DType::bf16, {}};
  KeptCasts casts_{net_.weights(), kernels_, DType::bf16};
  std::vector<std::vector<uint16_t>> results_;
};

constexpr int kOneProduct = 2 + 3;  // forward, gradient of x; three gradients of weights
constexpr int kOfAlone = 3;

TEST_F(KeptCastsTest, ServeAllPassesOfAnUpdate) {
  {
    const KeptCasts::Scope nothing_known = casts_.begin();
    EXPECT_EQ(pass().copies, 4);
  }
  const std::vector<std::vector<uint16_t>> own_casts = results_;
  copies = 0;
  const KeptCasts::Scope kept = casts_.begin();
  EXPECT_EQ(copies, 4);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(pass(), (Counts{0, kOneProduct + kOfAlone}));
    EXPECT_EQ(results_, own_casts);
  }
}

TEST_F(KeptCastsTest, AreOfTheWeightsAsTheyAreWhenAnUpdateBegins) {
  pass();
  const std::vector<std::vector<uint16_t>> before = results_;
  {
    const KeptCasts::Scope kept = casts_.begin();
    pass();
    EXPECT_EQ(results_, before);
  }
  kernels_.axpy(net_.parameters().values(), net_.parameters().values(), 1.0, 1);  // all are doubled
  EXPECT_EQ(pass().copies, 4) << "outside of updates passes make their own";
  const std::vector<std::vector<uint16_t>> after = results_;
  EXPECT_NE(after, before);
  const KeptCasts::Scope kept = casts_.begin();
  EXPECT_EQ(pass().copies, 0);
  EXPECT_EQ(results_, after);
}

TEST_F(KeptCastsTest, AreNotNeededForActivationsOfTheParametersType) {
  KeptCasts none(net_.weights(), kernels_, DType::f32);
  Tape tape(kernels_, arena_, DType::f32, {.recording = true});
  copies = 0;
  const KeptCasts::Scope kept = none.begin();
  for (Weight* w : side_by_side_) EXPECT_EQ(w->value(tape).value.data, w->dense()->value.data);
  EXPECT_EQ(copies, 0);
}

}  // namespace
}  // namespace qn::test
