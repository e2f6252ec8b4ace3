// k-means assignment with whatever the rest of the program was compiled for.
#define QN_ISA baseline
#define QN_LANES 4
#include "quant/kmeans_assign.h"
