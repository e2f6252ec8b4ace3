// Products with matrices of codes in the build's own instruction set.
#define QN_ISA codes_baseline
#include <cstdint>
#include <cstring>

namespace qn::cpu::QN_ISA {
namespace {

struct Lanes {
  static constexpr int kLanes = 4;
  typedef float Vector __attribute__((vector_size(kLanes * sizeof(float))));
  static Vector all(float v) { return Vector{v, v, v, v}; }
  static Vector load(const float* from) {
    Vector v;
    std::memcpy(&v, from, sizeof v);
    return v;
  }
  static Vector from_bytes(const uint8_t* b) {
    return Vector{static_cast<float>(b[0]), static_cast<float>(b[1]), static_cast<float>(b[2]),
                  static_cast<float>(b[3])};
  }
};

}  // namespace
}  // namespace qn::cpu::QN_ISA
#include "ops/cpu/codes_tile.h"

namespace qn::cpu::QN_ISA {
extern const CodesVariant variant;
const CodesVariant variant{"baseline",  kTokens, token_tables, block_dots, grid_dots,
                           column_dots, nullptr, nullptr,      nullptr,    nullptr};
}  // namespace qn::cpu::QN_ISA
