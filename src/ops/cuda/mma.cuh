// Instructions of sm_80 and newer that CUDA C++ has no function for: products on tensor cores, loads of their operands,
// asynchronous copies. Everything here in PTX, and PTX nowhere else: tests on an emulated device have a header of their
// own in place of this.
//
// Which element of a matrix is in which lane's registers (PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating
// point type"; CUTLASS has the same in cute/atom/mma_traits_sm80.hpp). With g = lane / 4, t = lane % 4, a register of
// two elements holds the one of lower column (a) or row (b) in its low half:
//   a [16, 16]: a[0] row g, columns 2t, 2t + 1; a[1] row g + 8; a[2] row g, columns + 8; a[3] row g + 8, columns + 8
//   b [16, 8]:  b[0] rows 2t, 2t + 1 of column g; b[1] the same rows + 8
//   d [16, 8]:  d[0], d[1] row g, columns 2t, 2t + 1; d[2], d[3] row g + 8
#pragma once

#include <cstdint>

#include "ops/cuda/types.cuh"

namespace qn::cuda {

/// d += a b for bf16 or f16 operands, by a whole warp.
template <typename T>
__device__ inline void multiply_16x8x16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  static_assert(std::is_same_v<T, bf16> || std::is_same_v<T, f16>);
  if constexpr (std::is_same_v<T, bf16>)
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
        "%2, %3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
        "%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Four matrices of 8 rows of 16 bytes from shared memory; lane 8 i + r gives the address of row r of matrix i.
/// Register i then holds, of matrix i, elements 2t and 2t + 1 of row g; transposed: of rows 2t and 2t + 1, element g.
template <bool kTransposed>
__device__ inline void load_matrices(uint32_t (&registers)[4], const void* row) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(address)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(address)
                 : "memory");
}

/// Starts copying kBytes (8 or 16; both addresses are multiples of it) from global to shared memory; zeros where
/// `valid` is false, and `global` is not read then. There when the thread has called wait_for_copies().
template <int kBytes>
__device__ inline void copy_async(void* shared, const void* global, bool valid) {
  static_assert(kBytes == 8 || kBytes == 16);
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const uint32_t bytes = valid ? kBytes : 0;
  if constexpr (kBytes == 16)  // past the first-level cache
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(address), "l"(global), "r"(bytes) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;\n" ::"r"(address), "l"(global), "r"(bytes) : "memory");
}

/// Until all copies that this thread has started are done.
__device__ inline void wait_for_copies() { asm volatile("cp.async.wait_all;\n" ::: "memory"); }

/// 2^x to about two units in the last place; 0 for -infinity and where the result would be denormal.
__device__ inline float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
}

/// The value itself, of which the compiler knows nothing: what follows from it is computed anew in every pass of a loop
/// instead of filling registers all the time.
__device__ inline int computed_here(int value) {
  asm volatile("" : "+r"(value));
  return value;
}

}  // namespace qn::cuda
