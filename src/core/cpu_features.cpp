#include "core/cpu_features.h"

#include <cstdint>

#ifdef __x86_64__
#include <cpuid.h>
#endif

namespace qn {
namespace {

#ifdef __x86_64__
/// Registers that the operating system saves (XCR0).
uint32_t saved_registers() {
  uint32_t a = 0, b = 0, c = 0, d = 0;
  constexpr uint32_t kOsxsave = 1U << 27;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kOsxsave) == 0) return 0;
  uint32_t low = 0, high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

bool detect_bf16() {
  constexpr uint32_t kAvx512State = 0xe6, kTileState = 0x60000;  // SSE, AVX, masks, zmm; tile configuration and data
  constexpr uint32_t kAvx512Bf16 = 1U << 5, kAmxBf16 = 1U << 22;
  const uint32_t saved = saved_registers();
  uint32_t a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  const bool amx = (d & kAmxBf16) != 0 && (saved & kTileState) == kTileState;
  const bool avx512 = a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & kAvx512Bf16) != 0;
  return (saved & kAvx512State) == kAvx512State && (amx || avx512);
}
#else
bool detect_bf16() { return false; }
#endif

}  // namespace

bool cpu_multiplies_bf16() {
  static const bool detected = detect_bf16();
  return detected;
}

}  // namespace qn
