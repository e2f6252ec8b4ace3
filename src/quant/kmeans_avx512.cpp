// k-means assignment for processors with AVX-512; chosen at run time.
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12 on its own intrinsics
#include <immintrin.h>

#include <cfloat>
#include <cstdint>

#include "quant/kmeans_kernel.h"

#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,fma")
#define QN_ISA avx512
#define QN_LANES 16
#include "quant/kmeans_assign.h"
