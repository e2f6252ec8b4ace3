// Noise that replaces blocks of a weight: the proxy of product quantization (zeros), the mean sub-vector, or what the
// quantizer itself would put there, the nearest centroid of the weight's own codebook (paper, section 4.2 and A.1-A.3).
#pragma once

#include "compress/noisy_weight.h"
#include "quant/product_quantizer.h"
#include "quant/quantizer.h"

namespace qn {

/// What a block becomes.
enum class Replacement { zero, mean, centroid };

struct ReplacementOptions {
  Replacement by = Replacement::zero;
  /// All blocks of a cluster share their fate, instead of every block having its own.
  bool clusters = false;
  KMeansShape shape;  ///< n_centroids counts only where there is a codebook
  double rate = 0.0;
};

class ReplacementNoise : public NoisyWeight {
 public:
  ReplacementNoise(Parameter* dense, const ReplacementOptions& options);

  /// Whether it knows the weight's clusters: then there is no noise before there is a codebook.
  bool needs_codebook() const { return options_.clusters || options_.by == Replacement::centroid; }
  const KMeansShape& shape() const { return options_.shape; }
  /// Null until set.
  const PqTable* codebook() const { return codebook_.codes.empty() ? nullptr : &codebook_; }
  /// Codes are those of the weight as it was when the codebook was made.
  void set_codebook(const Kernels& kernels, PqTable codebook);

  void begin_update(const Kernels& kernels, int64_t update) override;
  Var value(Tape& tape) override;

 private:
  const Tensor& place(OwnedTensor& tensor, Shape shape, const Kernels& kernels) const;
  void set_values(const Kernels& kernels, int64_t rows, const std::vector<float>& values);
  void set_codes(const Kernels& kernels);
  void find_mean(const Kernels& kernels);

  ReplacementOptions options_;
  PqTable codebook_;
  OwnedTensor values_, sums_;  // in the backend's memory
  Buffer codes_;               // row-major, there too
};

}  // namespace qn
