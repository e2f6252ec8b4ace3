// Vectors of elements for kernels whose accumulators have to stay in registers: loops over arrays do not promise that.
// Kernels are templates over what moves a group of adjacent channels: Lanes (a vector) or OneLane (what is left over).
#pragma once

#include <cstring>

#include "ops/cpu/parallel.h"

namespace qn::cpu {

#ifdef __AVX512F__
inline constexpr int kVectorBytes = 64;
#else
inline constexpr int kVectorBytes = 32;
#endif

template <typename T>
struct OneLane {
  using P = ParameterOf<T>;
  using Vector = P;
  static constexpr int64_t kCount = 1;
  static Vector load(const T* from) { return static_cast<P>(*from); }
  static void store(T* to, Vector v) { *to = static_cast<T>(v); }
  static Vector load_parameter(const P* from) { return *from; }
  static void store_parameter(P* to, Vector v) { *to = v; }
};

/// As many elements as fit into a register as P.
template <typename T>
struct Lanes {
  using P = ParameterOf<T>;
  static constexpr int64_t kCount = kVectorBytes / static_cast<int64_t>(sizeof(P));
  typedef P Vector __attribute__((vector_size(kVectorBytes)));

  static Vector load_parameter(const P* from) {
    Vector v;
    std::memcpy(&v, from, sizeof v);
    return v;
  }
  static void store_parameter(P* to, Vector v) { std::memcpy(to, &v, sizeof v); }

  static Vector load(const T* from) {
    if constexpr (!std::is_same_v<T, bfloat16>) {
      return load_parameter(from);
    } else {
      Half half;
      std::memcpy(&half, from, sizeof half);
      return reinterpret_cast<Vector>(__builtin_convertvector(half, Bits) << 16);
    }
  }
  /// Rounds as bfloat16's constructor does.
  static void store(T* to, Vector v) {
    if constexpr (!std::is_same_v<T, bfloat16>) {
      store_parameter(to, v);
    } else {
      P values[kCount];  // from memory the conversion vectorises, from a register it does not
      store_parameter(values, v);
      for (int64_t i = 0; i < kCount; ++i) to[i] = static_cast<T>(values[i]);
    }
  }

 private:
  typedef uint32_t Bits __attribute__((vector_size(kVectorBytes)));
  typedef uint16_t Half __attribute__((vector_size(kVectorBytes / 2)));
};

/// f(lanes, vectors, channel) for blocks of adjacent channels that cover [0, channels): `vectors` (a constant) vectors
/// of lanes.kCount channels each, as many as `Most` at a time.
template <typename T, int Most, typename F>
void for_channel_blocks(int64_t channels, F&& f) {
  constexpr int64_t kWide = Most * Lanes<T>::kCount;
  int64_t c = 0;
  for (; c + kWide <= channels; c += kWide) f(Lanes<T>{}, std::integral_constant<int, Most>{}, c);
  for (; c + Lanes<T>::kCount <= channels; c += Lanes<T>::kCount) f(Lanes<T>{}, std::integral_constant<int, 1>{}, c);
  for (; c < channels; ++c) f(OneLane<T>{}, std::integral_constant<int, 1>{}, c);
}

}  // namespace qn::cpu
