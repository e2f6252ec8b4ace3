#include "core/tensor.h"

#include <fmt/ranges.h>

namespace qn {

size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::f64:
    case DType::i64:
      return 8;
    case DType::bf16:
    case DType::f16:
      return 2;
    case DType::u8:
    case DType::i8:
      return 1;
  }
  QN_ASSERT(false, "unknown element type");
}

const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "f32";
    case DType::f64:
      return "f64";
    case DType::bf16:
      return "bf16";
    case DType::f16:
      return "f16";
    case DType::i32:
      return "i32";
    case DType::i64:
      return "i64";
    case DType::u8:
      return "u8";
    case DType::i8:
      return "i8";
  }
  QN_ASSERT(false, "unknown element type");
}

Shape::Shape(std::initializer_list<int64_t> dims) : Shape(std::span<const int64_t>(dims.begin(), dims.size())) {}

Shape::Shape(std::span<const int64_t> dims) : rank_(static_cast<int>(dims.size())) {
  QN_ASSERT(rank_ <= kMaxRank, "at most {} dimensions", kMaxRank);
  for (int i = 0; i < rank_; ++i) dims_[static_cast<size_t>(i)] = dims[static_cast<size_t>(i)];
}

int64_t Shape::elements() const {
  int64_t n = 1;
  for (int i = 0; i < rank_; ++i) n *= dims_[static_cast<size_t>(i)];
  return n;
}

std::string Shape::to_string() const { return fmt::format("[{}]", fmt::join(to_vector(), ", ")); }

bool Shape::operator==(const Shape& other) const { return rank_ == other.rank_ && dims_ == other.dims_; }

Tensor Tensor::reshaped(Shape other) const {
  QN_ASSERT(other.elements() == elements(), "{} as {}", shape.to_string(), other.to_string());
  return {data, other, dtype};
}

Tensor Tensor::row_slice(int64_t begin, int64_t count) const {
  QN_ASSERT(begin >= 0 && begin + count <= rows(), "rows {}..{} of {}", begin, begin + count, rows());
  return {static_cast<std::byte*>(data) + static_cast<size_t>(begin * cols()) * size_of(dtype), {count, cols()}, dtype};
}

}  // namespace qn
