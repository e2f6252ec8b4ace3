// Comparison of what two k-means gave.
#pragma once

#include <gtest/gtest.h>

#include "quant/kmeans.h"

namespace qn::test {

inline void expect_same_bits(const std::vector<WeightResult>& a, const std::vector<WeightResult>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].table.centroids, b[i].table.centroids) << "weight " << i;
    EXPECT_EQ(a[i].table.codes, b[i].table.codes) << "weight " << i;
    EXPECT_EQ(a[i].table.counts, b[i].table.counts) << "weight " << i;
    EXPECT_EQ(a[i].objective, b[i].objective) << "weight " << i;
    EXPECT_EQ(a[i].resolved_empty, b[i].resolved_empty) << "weight " << i;
    EXPECT_EQ(a[i].still_empty, b[i].still_empty) << "weight " << i;
  }
}

}  // namespace qn::test
