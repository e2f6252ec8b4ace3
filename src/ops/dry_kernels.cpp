#include "ops/dry_kernels.h"

#include <bit>
#include <type_traits>

#include "ops/kernel_list.h"

namespace qn {
namespace {

/// The signature that grows on this thread, and who does the uploads.
struct Current {
  uint64_t hash = 0;
  const Kernels* inner = nullptr;
};
thread_local Current current;

/// Multiply and shift of splitmix64: two signatures that differ are equal with probability 2^-64.
void note(uint64_t value) {
  uint64_t h = current.hash ^ value;
  h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9;
  h = (h ^ (h >> 27)) * 0x94d049bb133111eb;
  current.hash = (h ^ (h >> 31)) + 0x9e3779b97f4a7c15;
}

template <typename T>
void note_argument(const T& value) {
  if constexpr (std::is_pointer_v<T>)
    note(reinterpret_cast<uintptr_t>(value));
  else if constexpr (std::is_same_v<T, double>)
    note(std::bit_cast<uint64_t>(value));
  else
    note(static_cast<uint64_t>(value));  // integers and enumerations: all else has a function of its own
}

template <typename... T>
void note_all(const T&... values);

void note_argument(const Shape& shape) {
  note_argument(shape.rank());
  for (int i = 0; i < shape.rank(); ++i) note_argument(shape[i]);
}
void note_argument(const Tensor& t) { note_all(t.data, t.dtype, t.shape); }
/// Update and micro-batch are what a graph gets anew at every launch.
void note_argument(const RandomKey& key) { note_all(key.seed, key.purpose, key.id); }
void note_argument(const MatmulArgs& a) {
  note_all(a.dtype, a.dtype_c, a.transpose_a, a.transpose_b, a.m, a.n, a.k, a.a, a.lda, a.b, a.ldb, a.c, a.ldc, a.alpha,
           a.beta);
}
void note_argument(const RowSequences& s) { note_all(s.longest, s.begins, s.lengths); }
/// The number of pairs concerns no kernel.
void note_argument(const AttentionArgs& a) {
  note_all(a.batch, a.queries, a.keys, a.heads, a.head_dim, a.causal, a.dropout, a.key, a.kept);
}
void note_argument(const Int8MatmulArgs& a) {
  note_all(a.x, a.grid.bits, a.grid.scale, a.grid.zero_point, a.weight, a.scales, a.zero_points, a.grid_per_row, a.n,
           a.y, a.column);
}
void note_argument(const CodeMatrix& m) {
  note_all(m.rows, m.cols, m.codes, m.bits, m.block, m.levels, m.centroids, m.row_scales, m.scales, m.zero_points);
}
void note_argument(const CodeMatmulArgs& a) { note_all(a.weight, a.x, a.y, a.column, a.transposed); }
void note_argument(const ConvShape& s) {
  note_all(s.batch, s.height, s.width, s.in, s.out, s.groups, s.kernel_h, s.kernel_w, s.stride, s.pad_top, s.pad_bottom,
           s.pad_left, s.pad_right);
}
void note_argument(const FusedActivation& act) { note(act.has_value() ? 1 + static_cast<uint64_t>(*act) : 0); }
void note_argument(const ConvEpilogue& e) { note_all(e.scale, e.shift, e.activation, e.residual); }
// Decisions are made between passes.
void note_argument(const UpdateRule&) { QN_ASSERT(false, "not a kernel of a pass"); }
void note_argument(const NagStep&) { QN_ASSERT(false, "not a kernel of a pass"); }
void note_argument(const AdamStep&) { QN_ASSERT(false, "not a kernel of a pass"); }
void note_argument(const SgdStep&) { QN_ASSERT(false, "not a kernel of a pass"); }
void note_argument(const RmspropStep&) { QN_ASSERT(false, "not a kernel of a pass"); }

template <typename... T>
void note_all(const T&... values) {
  (note_argument(values), ...);
}

#define QN_ENTRY(name) name##_op,
enum OpNumber : int32_t { QN_EACH_KERNEL(QN_ENTRY) };
#undef QN_ENTRY

template <auto Kernel, int32_t Op>
struct Noted;

template <typename R, typename... A, R (*Kernels::*Kernel)(A...), int32_t Op>
struct Noted<Kernel, Op> {
  static R call(A... args) {
    note(Op);
    note_all(args...);
    if constexpr (!std::is_void_v<R>) QN_ASSERT(false, "a pass must not wait for results");
    if constexpr (!std::is_void_v<R>) return R{};
  }
};

template <>
struct Noted<&Kernels::upload, upload_op> {
  static void call(void* to, const void* from_host, size_t bytes) {
    note(upload_op);
    note_all(to, bytes);  // not what is uploaded: the graph reads it where it now is
    current.inner->upload(to, from_host, bytes);
  }
};

void refuse_download(void*, const void*, size_t) { QN_ASSERT(false, "a pass must not read results"); }

}  // namespace

DryRun::DryRun(const Kernels& inner)
#define QN_ENTRY(name) .name = Noted<&Kernels::name, name##_op>::call,
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

void DryRun::begin() { current = {0, &inner_}; }

uint64_t DryRun::signature() const {
  QN_ASSERT(current.inner == &inner_);
  return current.hash;
}

}  // namespace qn
