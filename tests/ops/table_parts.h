// What the parts of the op table are written with.
#pragma once

#include <span>
#include <vector>

#include "ops_table.h"

namespace qn::test {

using Cases = std::vector<OpCase>;
using Inputs = std::span<const Var>;
using Values = OpInput::Values;

inline OpInput parameter(Shape shape, Values values = Values::any) { return {shape, values, true}; }

/// A copy that a kernel may write to.
inline Var copy_of(Tape& t, const Var& x) {
  const Var y{t.arena.tensor(x.value.shape, x.value.dtype), nullptr};
  t.k.copy(y.value, x.value);
  return y;
}

/// A copy where the tape's kernels find it, until the end of the run.
template <typename T>
const T* uploaded(Tape& t, const std::vector<T>& values) {
  auto* place = static_cast<T*>(t.arena.allocate(values.size() * sizeof(T)));
  t.k.upload(place, values.data(), values.size() * sizeof(T));
  return place;
}

/// `count` numbers below `range`, in an order without pattern; every number occurs when there are enough.
template <typename T>
std::vector<T> scattered(int64_t count, int64_t range) {
  std::vector<T> values;
  for (int64_t i = 0; i < count; ++i) values.push_back(static_cast<T>(i * 7919 % range));
  return values;
}

/// kernels_table.cpp: decisions about updates, and kernels that no op reaches.
void add_decisions(Cases& cases);
void add_kernels(Cases& cases);
/// quantize_table.cpp: scalar quantization, and scales of rows.
void add_fake_quantize(Cases& cases);
void add_scale_rows(Cases& cases);
/// vision_table.cpp: ops of image networks.
void add_vision(Cases& cases);
/// int8_table.cpp: products of quantized matrices.
void add_int8(Cases& cases);
/// codes_table.cpp: matrices of codes.
void add_codes(Cases& cases);

}  // namespace qn::test
