#include "ops/cuda/codes.cuh"

namespace qn::cuda {
namespace {

constexpr int64_t kMostParts = 16;      // more would take the last block of threads longer to add up than they save
constexpr int64_t kEnoughBlocks = 256;  // of threads, to keep a device busy
constexpr size_t kCounters = size_t{1} << 12;

/// Zeros, which kernels leave as zeros. One array for each thread that queues kernels, as its kernels run in order.
uint32_t* counters() {
  static thread_local const Buffer buffer(kCounters * sizeof(uint32_t), device_memory());
  return reinterpret_cast<uint32_t*>(buffer.data());
}

CodeInputs inputs_of(const Tensor& x) {
  const bool aligned = x.cols() % 4 == 0 && reinterpret_cast<uintptr_t>(x.data) % 16 == 0;
  return {x.data, x.dtype, x.rows(), x.cols(), aligned};
}

}  // namespace

void check_alignment(const CodeMatrix& w) {
  QN_ASSERT(reinterpret_cast<uintptr_t>(w.codes) % 16 == 0 && reinterpret_cast<uintptr_t>(w.centroids) % 16 == 0,
            "codes or centroids are not aligned to 16 bytes");
}

CodeProduct product_of(const CodeMatmulArgs& args) {
  const CodeMatrix& w = args.weight;
  check_alignment(w);
  constexpr int64_t kMost = int64_t{1} << 30;
  QN_ASSERT(w.rows < kMost && w.cols < kMost, "codes [{}, {}]", w.rows, w.cols);
  const auto blocks = static_cast<int>(w.blocks());
  return {w, inputs_of(args.x), inputs_of(args.y), args.column, blocks, blocks, nullptr, nullptr};
}

dim3 share_out(CodeProduct& p, int64_t tiles, int64_t groups, int64_t sums, int64_t step) {
  const int64_t blocks = p.blocks, most = std::min<int64_t>(kMostParts, ceil_div(blocks, step));
  int64_t parts = std::clamp<int64_t>(kEnoughBlocks / (tiles * groups), 1, most);
  if (tiles * groups > static_cast<int64_t>(kCounters)) parts = 1;
  p.part_blocks = static_cast<int>((blocks + parts * step - 1) / (parts * step) * step);
  parts = ceil_div(blocks, p.part_blocks);
  if (parts > 1) {
    p.sums = static_cast<float*>(
        Context::current().scratch().allocate(static_cast<size_t>(tiles * groups * parts * sums) * sizeof(float)));
    p.arrived = counters();
  }
  return {static_cast<unsigned>(tiles), static_cast<unsigned>(parts), static_cast<unsigned>(groups)};
}

}  // namespace qn::cuda
