// How much work a pass is, found by going through it without computing it.
#pragma once

#include <array>
#include <cstdint>
#include <map>

#include "ops/kernels.h"

namespace qn {

/// The sides of a matrix product [m, k] x [k, n], and how its operands lie in memory.
struct ProductShape {
  int64_t m = 0, n = 0, k = 0;
  bool transpose_a = false, transpose_b = false;
};

/// Kernels that add up the operations of what they are called with (ops/work.h) and do nothing; only uploads are done.
/// One of them may be in use per thread at a time.
class DryWork {
 public:
  explicit DryWork(const Kernels& inner);
  const Kernels& kernels() const { return table_; }
  /// Starts counting anew.
  void begin();
  /// Since then.
  double flops() const { return flops_; }
  /// The product that took most operations, counted together with those that have the same sides in another order (the
  /// backward's of a linear layer); of these the first.
  ProductShape largest_product() const;

 private:
  template <auto Kernel>
  struct Counted;
  struct Products {
    ProductShape first;
    double flops = 0.0;
  };
  void add(const MatmulArgs& args);

  Kernels table_;
  const Kernels& inner_;
  double flops_ = 0.0;
  std::map<std::array<int64_t, 3>, Products> products_;  // by sides, ascending
};

}  // namespace qn
