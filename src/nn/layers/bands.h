// The vocabulary cut into bands of falling frequency: shared by adaptive input and adaptive softmax
// (reference 5.5, 5.6).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace qn {

class Bands {
 public:
  /// `cutoffs`: ascending; the vocabulary size is appended when missing. Throws qn::UsageError when they do not ascend
  /// or exceed the vocabulary. Band i has dimension int(dim / factor^i).
  Bands(std::vector<int64_t> cutoffs, int64_t vocabulary, int64_t dim, double factor);

  int64_t count() const { return static_cast<int64_t>(ends_.size()); }
  int64_t first(int64_t band) const { return band == 0 ? 0 : ends_[static_cast<size_t>(band - 1)]; }
  int64_t size(int64_t band) const { return ends_[static_cast<size_t>(band)] - first(band); }
  int64_t dim(int64_t band) const { return dims_[static_cast<size_t>(band)]; }

  /// Positions of a flat id list by band, with ids relative to the band's first. Negative ids belong to no band. Bands
  /// that are not empty are filled up to a multiple of `multiple` with rows and ids of -1.
  struct Split {
    std::vector<std::vector<int32_t>> rows, ids;
  };
  Split split(std::span<const int32_t> ids, int64_t multiple) const;

 private:
  std::vector<int64_t> ends_, dims_;
};

}  // namespace qn
