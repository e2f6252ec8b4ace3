// k-means assignment for processors with AVX2; chosen at run time.
#include <immintrin.h>

#include <cfloat>
#include <cstdint>

#include "quant/kmeans_kernel.h"

#pragma GCC target("avx2,fma")
#define QN_ISA avx2
#define QN_LANES 8
#include "quant/kmeans_assign.h"
