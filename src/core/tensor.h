// Contiguous row-major tensors: a pointer, a shape, an element type. Views own nothing; Buffer owns.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/bfloat16.h"
#include "core/error.h"
#include "core/memory.h"

namespace qn {

/// f16 is a storage type of GPU backends; no host code computes with it.
enum class DType : uint8_t { f32, f64, bf16, f16, i32, i64, u8, i8 };

size_t size_of(DType dtype);
const char* name_of(DType dtype);

template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct DTypeOf<bfloat16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = DType::i64;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = DType::u8;
};
template <>
struct DTypeOf<int8_t> {
  static constexpr DType value = DType::i8;
};

/// Up to four dimensions, outermost first.
class Shape {
 public:
  static constexpr int kMaxRank = 4;
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims);
  explicit Shape(std::span<const int64_t> dims);

  int rank() const { return rank_; }
  int64_t operator[](int axis) const { return dims_[static_cast<size_t>(axis < 0 ? axis + rank_ : axis)]; }
  int64_t elements() const;
  std::vector<int64_t> to_vector() const { return {dims_.begin(), dims_.begin() + rank_}; }
  std::string to_string() const;
  bool operator==(const Shape& other) const;

 private:
  std::array<int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

/// A view of contiguous elements. Copying copies the view. Does not own its memory.
struct Tensor {
  void* data = nullptr;
  Shape shape;
  DType dtype = DType::f32;

  bool defined() const { return data != nullptr; }
  int64_t elements() const { return shape.elements(); }
  size_t bytes() const { return static_cast<size_t>(elements()) * size_of(dtype); }
  /// Rows and columns when everything but the last axis is flattened.
  int64_t cols() const { return shape.rank() == 0 ? 1 : shape[-1]; }
  int64_t rows() const { return shape.rank() == 0 ? 1 : elements() / std::max<int64_t>(cols(), 1); }

  template <typename T>
  T* as() const {
    QN_ASSERT(dtype == DTypeOf<T>::value, "tensor holds {}, asked for {}", name_of(dtype), name_of(DTypeOf<T>::value));
    return static_cast<T*>(data);
  }
  template <typename T>
  std::span<T> span() const {
    return {as<T>(), static_cast<size_t>(elements())};
  }
  /// The same elements under another shape of equal size.
  Tensor reshaped(Shape other) const;
  /// Rows [begin, begin + count) of the flattened [rows, cols] view.
  Tensor row_slice(int64_t begin, int64_t count) const;
};

/// Wraps caller-owned memory.
template <typename T>
Tensor view_of(T* data, Shape shape) {
  return {const_cast<std::remove_const_t<T>*>(data), shape, DTypeOf<std::remove_const_t<T>>::value};
}

/// Deleter of memory.
struct ReleaseTo {
  const Memory* memory = nullptr;
  void operator()(std::byte* p) const { memory->release(p); }
};

/// Zero-initialised memory, aligned to 64 bytes.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t bytes, const Memory& memory = host_memory())
      : data_(static_cast<std::byte*>(memory.allocate(bytes)), ReleaseTo{&memory}), size_(bytes) {}
  std::byte* data() const { return data_.get(); }
  size_t size() const { return size_; }

 private:
  std::unique_ptr<std::byte, ReleaseTo> data_;
  size_t size_ = 0;
};

/// A tensor with its own memory.
class OwnedTensor {
 public:
  OwnedTensor() = default;
  OwnedTensor(Shape shape, DType dtype, const Memory& memory = host_memory())
      : buffer_(static_cast<size_t>(shape.elements()) * size_of(dtype), memory), view_{buffer_.data(), shape, dtype} {}
  const Tensor& view() const { return view_; }
  bool defined() const { return view_.defined(); }

 private:
  Buffer buffer_;
  Tensor view_;
};

}  // namespace qn
