#include "core/tensor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <numeric>

namespace qn {
namespace {

using testing::Each;
using testing::ElementsAre;

TEST(Shape, KnowsItsSize) {
  const Shape shape{2, 3, 5};
  EXPECT_EQ(shape.rank(), 3);
  EXPECT_EQ(shape.elements(), 30);
  EXPECT_EQ(shape[0], 2);
  EXPECT_EQ(shape[-1], 5);
  EXPECT_EQ(shape[-3], 2);
  EXPECT_EQ(shape.to_string(), "[2, 3, 5]");
  EXPECT_THAT(shape.to_vector(), ElementsAre(2, 3, 5));
}

TEST(Shape, ScalarsAndEmptyShapes) {
  EXPECT_EQ(Shape().elements(), 1);
  EXPECT_EQ(Shape().to_string(), "[]");
  EXPECT_EQ((Shape{3, 0, 2}).elements(), 0);
}

TEST(Shape, EqualityNeedsTheSameRank) {
  EXPECT_EQ((Shape{2, 3}), (Shape{2, 3}));
  EXPECT_FALSE((Shape{2, 3}) == (Shape{3, 2}));
  EXPECT_FALSE((Shape{2}) == (Shape{2, 0}));
  EXPECT_FALSE(Shape() == Shape{0});
}

TEST(Shape, RefusesFiveDimensions) { EXPECT_THROW((Shape{1, 1, 1, 1, 1}), InternalError); }

TEST(DType, SizesAndNames) {
  EXPECT_EQ(size_of(DType::f32), sizeof(float));
  EXPECT_EQ(size_of(DType::f64), sizeof(double));
  EXPECT_EQ(size_of(DType::bf16), sizeof(bfloat16));
  EXPECT_EQ(size_of(DType::f16), 2U);
  EXPECT_EQ(size_of(DType::i32), sizeof(int32_t));
  EXPECT_EQ(size_of(DType::i64), sizeof(int64_t));
  EXPECT_EQ(size_of(DType::u8), sizeof(uint8_t));
  EXPECT_EQ(size_of(DType::i8), sizeof(int8_t));
  EXPECT_STREQ(name_of(DType::f32), "f32");
  EXPECT_STREQ(name_of(DType::bf16), "bf16");
  EXPECT_STREQ(name_of(DType::f16), "f16");
  EXPECT_STREQ(name_of(DType::u8), "u8");
  EXPECT_STREQ(name_of(DType::i8), "i8");
}

TEST(Tensor, ViewsShareMemory) {
  std::vector<float> values(24);
  std::iota(values.begin(), values.end(), 0.0f);
  const Tensor tensor = view_of(values.data(), {2, 3, 4});
  EXPECT_EQ(tensor.rows(), 6);
  EXPECT_EQ(tensor.cols(), 4);
  EXPECT_EQ(tensor.bytes(), 96u);
  tensor.as<float>()[5] = -1;
  EXPECT_EQ(values[5], -1);

  const Tensor slice = tensor.row_slice(1, 2);
  EXPECT_EQ(slice.shape, (Shape{2, 4}));
  EXPECT_THAT(slice.span<float>(), ElementsAre(4, -1, 6, 7, 8, 9, 10, 11));
  EXPECT_EQ(tensor.row_slice(6, 0).elements(), 0);

  const Tensor flat = tensor.reshaped({24});
  EXPECT_EQ(flat.data, tensor.data);
  EXPECT_EQ(flat.shape, Shape{24});
}

TEST(Tensor, WrongUsesThrow) {
  std::vector<int64_t> values(6);
  const Tensor tensor = view_of(values.data(), {2, 3});
  EXPECT_THROW(tensor.as<int32_t>(), InternalError);
  EXPECT_THROW(tensor.reshaped({5}), InternalError);
  EXPECT_THROW(tensor.row_slice(1, 2), InternalError);
  EXPECT_THROW(tensor.row_slice(-1, 1), InternalError);
}

TEST(Tensor, ScalarsHaveOneRow) {
  double value = 3;
  const Tensor scalar = view_of(&value, {});
  EXPECT_EQ(scalar.rows(), 1);
  EXPECT_EQ(scalar.cols(), 1);
  EXPECT_EQ(scalar.elements(), 1);
}

TEST(OwnedTensor, IsZeroAlignedAndMovable) {
  OwnedTensor tensor({3, 5}, DType::f32);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.view().data) % 64, 0u);
  EXPECT_THAT(tensor.view().span<float>(), Each(0.0f));
  tensor.view().as<float>()[14] = 2;
  const void* data = tensor.view().data;
  const OwnedTensor moved = std::move(tensor);
  EXPECT_EQ(moved.view().data, data);
  EXPECT_EQ(moved.view().as<float>()[14], 2);
  EXPECT_FALSE(OwnedTensor().defined());
  EXPECT_TRUE(OwnedTensor({0}, DType::f32).defined());
}

}  // namespace
}  // namespace qn
