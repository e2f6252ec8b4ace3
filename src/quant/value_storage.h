// How values that are not codes are stored in files: as they are, as halves, or as bytes with one scale per tensor.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "core/enum_names.h"

namespace qn {

/// int8: one byte per value plus one float32 scale per tensor. log8: one byte per value (a sign and a power) plus two
/// float32 per tensor, the largest magnitude and the step between powers, of which 2 to this is the ratio.
enum class ValueStorage : uint8_t { f32, f16, int8, log8 };
template <>
struct EnumNames<ValueStorage> {
  static constexpr EnumName<ValueStorage> kAll[] = {{ValueStorage::f32, "fp32"},
                                                    {ValueStorage::f16, "fp16"},
                                                    {ValueStorage::int8, "int8"},
                                                    {ValueStorage::log8, "log8"}};
};

/// Bytes that `count` values take.
uint64_t stored_bytes(int64_t count, ValueStorage storage);

/// Scale of int8 values: at most 12 significant bits, so that 127 * scale is exact and storing twice changes nothing.
float int8_scale(std::span<const float> values);
/// By the arithmetic of ops/uniform_grid.h, so that kernels that quantize with this zero point give what files hold.
int8_t to_int8(float value, float scale);
inline constexpr float kInt8ZeroPoint = 128.0f;

/// The magnitudes that bytes of log8 can stand for, beside 0: largest * 2^(-n step) for n = 0 ... 126, whose codes are
/// 127 - n, or less than 0 for negative numbers. The step is a power of two from 1/64 to 1/4: fine enough for what is
/// large, coarse enough for what is small, and storing twice changes nothing. What is smaller than all that becomes 0:
/// a row or two of next to nothing do not make the others coarse.
struct LogGrid {
  float largest = 0.0f, step = 1.0f / 64.0f;
  static LogGrid of(std::span<const float> values);
  int8_t code(float value) const;
  float value(int8_t code) const;
  double cost(std::span<const float> values) const;
  bool operator==(const LogGrid&) const = default;
};

/// Why a file cannot hold these values: "70000 at element 5 is beyond 65504, the largest number of fp16"; empty when it
/// can.
std::string not_storable(std::span<const float> values, ValueStorage storage);
/// Values that are not all zero would all become zero.
bool underflow(std::span<const float> values, ValueStorage storage);

/// Rounds values to what a file will give back.
void round_to_storage(std::span<float> values, ValueStorage storage);

}  // namespace qn
