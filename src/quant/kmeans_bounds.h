// Bounds that spare an E-step most distances: what one E-step has found out about each sub-vector is kept, in a byte
// per group of centroids, and holds for the next one as far as centroids have not moved.
//
// Centroids are divided into at most 8 groups of neighbours. Of a sub-vector x whose centroid is a, the byte of group g
// says: no centroid of g other than a is nearer to x than `byte` units. When centroids move, no distance falls by more
// than the longest way that one of the group has gone, and so much is taken off. An E-step computes the distance to a
// as it is now; groups whose bound is beyond it cannot hold the nearest centroid, nor one as near. Where all are, x
// keeps its code; else the other groups are looked at, centroid by centroid, and get new bounds. (Elkan's and Hamerly's
// idea in the form of "Yinyang K-Means: A Drop-In Replacement of the Classic K-Means with Consistent Speedup", Ding et
// al., ICML 2015; there bounds are floats, and there are K / 10 groups.)
//
// Everything that is rounded is rounded to the safe side, so codes and sums are those of an E-step without bounds, bit
// by bit: whether there are any, and how good they are, is a matter of speed only. They are in no checkpoint.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "quant/kmeans_kernel.h"

namespace qn {

/// The bounds of one weight's sub-vectors [begin, end), always the same ones: 8 bytes per sub-vector, allocated when
/// they are first made.
class AssignBounds {
 public:
  /// `eager`: from the second E-step on, even where nothing is gained, for tests.
  explicit AssignBounds(bool eager = false) : eager_(eager) {}

  /// To be called before an E-step that may change `codes`, which must be those of the E-step before (if any), codes[0]
  /// that of sub-vector `begin`. Null if this E-step is to go without bounds.
  const BoundStep* start(const SubVectors& vectors, int64_t begin, int64_t end, const CentroidTable& table,
                         const uint16_t* codes);
  /// To be called after it: `looked_at` groups of sub-vectors had to be looked at.
  void finish(int64_t looked_at);
  /// Share of the groups of all sub-vectors that the last E-step had to look at; 1 if it went without bounds.
  double share_looked_at() const { return share_looked_at_; }

 private:
  bool suit(const SubVectors& vectors, int64_t count, const CentroidTable& table) const;
  void make(int64_t count, const CentroidTable& table, double typical);
  void move(const std::vector<double>& ways);
  void lay_out_groups(const SubVectors& vectors, const CentroidTable& table);

  const bool eager_;
  std::vector<float> centroids_;  ///< of the E-step before
  std::vector<uint8_t> bytes_;    ///< [count, 8]
  bool valid_ = false;            ///< bytes_ belong to centroids_ and the codes
  bool made_ = false;             ///< in this E-step, for the first time
  int64_t rest_ = 0;              ///< E-steps to go without bounds
  int64_t next_rest_ = 1;         ///< what a failure costs
  int64_t count_ = 0;
  double share_looked_at_ = 1.0;
  std::vector<uint16_t> numbers_, places_;
  double rest_of_way_[kBoundGroups] = {};  ///< in units, less than one: moved, but not taken off the bytes yet
  std::unique_ptr<CentroidTable> grouped_;
  Buffer scores_;  ///< BoundStep::centroids, then norms
  BoundStep step_;
};

}  // namespace qn
