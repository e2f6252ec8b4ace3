// Product-quantized weights on the CPU: rebuilding a dense weight from codes and centroids, and carrying a dense
// gradient back to the centroids (fairseq semantics, "Iterative PQ" 3.1 and 3.3).
//
// Layout: a weight [rows, cols] is cut into blocks of d columns; block n = j * rows + r is W[r, j*d : (j+1)*d]
// (block column j outer, row r inner) and codes[n] in [0, K) names its centroid in centroids [K, d].
// Centroids and their gradients are of type P (float, double), dense weights and their gradients of T or P.
#pragma once

#include <cstdint>

namespace qn::cpu {

/// weight[r, j*d + t] = centroids[codes[j * rows + r], t]. cols must be a multiple of d; every code below K.
template <typename T, typename P>
void pq_decode(T* weight, const P* centroids, const uint16_t* codes, int64_t rows, int64_t cols, int64_t d);

/// grad_centroids[k] = beta * grad_centroids[k] + sum over blocks n with codes[n] == k of grad_weight's block n
/// (beta is 0 or 1; with 0 the old content is not read). With `counts` [K] the sum is divided by counts[k] (the mean
/// that fairseq uses for convolutions only); centroids without blocks get 0. Sums are taken in double and in an order
/// that depends on the sizes only, so the result does not depend on the number of threads.
template <typename P, typename T>
void pq_centroid_grad(P* grad_centroids, float beta, const T* grad_weight, const uint16_t* codes, int64_t rows,
                      int64_t cols, int64_t d, int64_t n_centroids, const int64_t* counts);

}  // namespace qn::cpu
