// k-means assignment for processors with AVX-512 and its integer products (VNNI); chosen at run time.
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12 on its own intrinsics
#include <immintrin.h>

#include <cfloat>
#include <cstdint>

#include "quant/kmeans_kernel.h"

#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,avx512vnni,fma")
#define QN_ISA avx512vnni
#define QN_LANES 16
#define QN_VNNI
#include "quant/kmeans_assign.h"
