// Products with matrices of codes for processors with AVX-512 but without its shuffles of bytes; chosen at run time.
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12 on its own intrinsics
#include <immintrin.h>

#pragma GCC target("avx512f,avx512bw,avx512vl,avx2,fma")
#define QN_ISA codes_avx512
#include "ops/cpu/codes_avx512_lanes.h"
#include "ops/cpu/codes_tile.h"
//
#include "ops/cpu/codes_gather_tile.h"

namespace qn::cpu::QN_ISA {
extern const CodesVariant variant;
const CodesVariant variant{"avx512",    kTokens, token_tables, block_dots,        grid_dots,
                           column_dots, nullptr, nullptr,      make_float_tables, float_lookups};
}  // namespace qn::cpu::QN_ISA
