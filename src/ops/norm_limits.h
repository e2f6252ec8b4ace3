// What keeps norms from dividing by zero.
#pragma once

namespace qn {

/// What layer_norm() adds to variances where a network does not say: torch's and fairseq's default.
inline constexpr double kNormEps = 1e-5;
/// normalize_rows() divides rows of a smaller Euclidean norm by this (torch's normalize()).
inline constexpr double kSmallestNorm = 1e-12;

}  // namespace qn
