#include "ops/dry_work.h"

#include <algorithm>
#include <type_traits>

#include "ops/kernel_list.h"
#include "ops/work.h"

namespace qn {
namespace {

// Kernels are plain functions: they find what they count for here.
thread_local DryWork* current = nullptr;

void refuse_download(void*, const void*, size_t) { QN_ASSERT(false, "a pass must not read results"); }

}  // namespace

template <typename R, typename... A, R (*Kernels::*Kernel)(A...)>
struct DryWork::Counted<Kernel> {
  static R call(A... args) {
    current->flops_ += WorkOf<Kernel>::of(args...).flops;
    if constexpr (!std::is_void_v<R>) return R{};
  }
};

template <>
struct DryWork::Counted<&Kernels::matmul> {
  static void call(const MatmulArgs& args) { current->add(args); }
};
template <>
struct DryWork::Counted<&Kernels::matmul_codes> {
  static void call(const CodeMatmulArgs& args) {
    const CodeMatrix& w = args.weight;
    current->add({.m = args.x.rows(), .n = w.rows, .k = w.cols});
  }
};
template <>
struct DryWork::Counted<&Kernels::upload> {
  static void call(void* to, const void* from_host, size_t bytes) { current->inner_.upload(to, from_host, bytes); }
};

DryWork::DryWork(const Kernels& inner)
#define QN_ENTRY(name) .name = Counted<&Kernels::name>::call,
    : table_{.backend = "dry run",
             .memory = inner.memory,
             .transfer = inner.transfer,
             .graphs = nullptr,
             .from_codes = inner.from_codes,
             QN_EACH_KERNEL(QN_ENTRY)},
      inner_(inner) {
#undef QN_ENTRY
  table_.download = table_.start_download = refuse_download;
}

void DryWork::begin() {
  current = this;
  flops_ = 0.0;
  products_.clear();
}

void DryWork::add(const MatmulArgs& args) {
  const double flops = matmul_work(args).flops;
  flops_ += flops;
  std::array<int64_t, 3> sides = {args.m, args.n, args.k};
  std::sort(sides.begin(), sides.end());
  Products& same = products_[sides];
  if (same.flops == 0.0) same.first = {args.m, args.n, args.k, args.transpose_a, args.transpose_b};
  same.flops += flops;
}

ProductShape DryWork::largest_product() const {
  ProductShape largest;
  double most = 0.0;
  for (const auto& [sides, same] : products_) {
    if (same.flops <= most) continue;
    most = same.flops;
    largest = same.first;
  }
  return largest;
}

}  // namespace qn
