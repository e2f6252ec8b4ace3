#include "ops/code_weight.h"

#include <algorithm>
#include <cmath>

#include "core/pooled_memory.h"

namespace qn {
namespace {

template <typename T>
const T* kept(const Kernels& kernels, std::vector<Buffer>& buffers, std::span<const T> values) {
  Buffer& buffer = buffers.emplace_back(values.size_bytes(), *kernels.memory);
  kernels.upload(buffer.data(), values.data(), values.size_bytes());
  return reinterpret_cast<const T*>(buffer.data());
}

double largest_norm(std::span<const float> centroids, int64_t block) {
  double largest = 0.0;
  for (size_t begin = 0; begin < centroids.size(); begin += static_cast<size_t>(block)) {
    double sum = 0.0;
    for (const float v : centroids.subspan(begin, static_cast<size_t>(block)))
      sum += static_cast<double>(v) * static_cast<double>(v);
    largest = std::max(largest, sum);
  }
  return std::sqrt(largest);
}

}  // namespace

void CodeWeight::keep_codes(const Kernels& kernels, std::span<const std::byte> codes, int64_t count, int bits) {
  QN_ASSERT(kernels.from_codes, "backend {} decodes weights", kernels.backend);
  QN_ASSERT(std::ssize(codes) == (count * bits + 7) / 8, "{} bytes for {} codes of {} bits", codes.size(), count, bits);
  const bool host = kernels.memory == &host_memory();
  codes_ = Buffer(codes.size() + kCodePadding, host ? pooled_host_memory() : *kernels.memory);
  kernels.upload(codes_.data(), codes.data(), codes.size());
  view_.codes = reinterpret_cast<const uint8_t*>(codes_.data());
  view_.bits = bits;
}

CodeWeight::CodeWeight(const Kernels& kernels, const Blocks& b) {
  QN_ASSERT(b.block >= 1 && b.cols % b.block == 0 && b.levels >= 1 && b.bits >= 1 && b.bits <= 16);
  QN_ASSERT(std::ssize(b.centroids) == b.levels * b.block);
  QN_ASSERT(b.row_scales.empty() || (std::ssize(b.row_scales) == b.rows && b.row_scale_values.size() == 256));
  view_.rows = b.rows;
  view_.cols = b.cols;
  view_.block = b.block;
  view_.levels = b.levels;
  view_.largest_norm = largest_norm(b.centroids, b.block);
  keep_codes(kernels, b.codes, b.rows * (b.cols / b.block), b.bits);
  view_.centroids = kept(kernels, values_, b.centroids);
  if (b.row_scales.empty()) return;
  view_.row_scales = kept(kernels, values_, b.row_scales);
  view_.row_scale_values = kept(kernels, values_, b.row_scale_values);
}

CodeWeight::CodeWeight(const Kernels& kernels, const Grid& g) {
  QN_ASSERT(g.bits >= 2 && g.bits <= 8, "{} bits", g.bits);
  QN_ASSERT(g.scales.size() == g.zero_points.size() && (g.scales.size() == 1 || std::ssize(g.scales) == g.rows));
  view_.rows = g.rows;
  view_.cols = g.cols;
  keep_codes(kernels, g.codes, g.rows * g.cols, g.bits);
  view_.scales = kept(kernels, values_, g.scales);
  view_.zero_points = kept(kernels, values_, g.zero_points);
  view_.grid_per_row = g.scales.size() > 1;
}

size_t CodeWeight::bytes() const {
  size_t bytes = codes_.size();
  for (const Buffer& b : values_) bytes += b.size();
  return bytes;
}

}  // namespace qn
