#include "ops/profiled_kernels.h"

#include <utility>

#include "ops/kernel_list.h"

namespace qn {
namespace {

const Kernels* inner_kernels = nullptr;

double bytes_of(const Tensor& t) { return t.defined() ? static_cast<double>(t.bytes()) : 0.0; }
template <typename T>
double bytes_of(const T&) {
  return 0.0;
}

/// What a call has to compute or move at least. Here: every tensor is read or written once.
template <auto Kernel>
struct WorkOf {
  template <typename... A>
  static Work of(const A&... args) {
    return {.bytes = (0.0 + ... + bytes_of(args))};
  }
};

struct TransferWork {
  static Work of(const void*, const void*, size_t bytes) { return {.bytes = static_cast<double>(bytes)}; }
};
template <>
struct WorkOf<&Kernels::upload> : TransferWork {};
template <>
struct WorkOf<&Kernels::download> : TransferWork {};
template <>
struct WorkOf<&Kernels::start_download> : TransferWork {};

template <>
struct WorkOf<&Kernels::matmul> {
  static Work of(const MatmulArgs& a) {
    return {.flops = 2.0 * static_cast<double>(a.m) * static_cast<double>(a.n) * static_cast<double>(a.k)};
  }
};

/// Of `products` matrix products over the pairs of positions that see each other.
Work attention_work(const AttentionArgs& a, double products) {
  const auto time = static_cast<double>(a.time);
  const double pairs = a.causal ? time * (time + 1.0) / 2.0 : time * time;
  return {.flops = 2.0 * products * static_cast<double>(a.batch * a.heads * a.head_dim) * pairs};
}

template <>
struct WorkOf<&Kernels::attention> {
  static Work of(const Tensor&, const Tensor&, const Tensor&, const AttentionArgs& args) {
    return attention_work(args, 2.0);
  }
};
template <>
struct WorkOf<&Kernels::attention_grad> {
  static Work of(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const AttentionArgs& args) {
    return attention_work(args, 5.0);
  }
};

/// y is read as well when the kernel adds to it.
Work accumulated(const Tensor& y, const Tensor& x, int beta) {
  return {.bytes = bytes_of(y) * (beta != 0 ? 2.0 : 1.0) + bytes_of(x)};
}

template <>
struct WorkOf<&Kernels::axpy> {
  static Work of(const Tensor& y, const Tensor& x, double, int beta) { return accumulated(y, x, beta); }
};
template <>
struct WorkOf<&Kernels::masked_axpy> {
  static Work of(const Tensor& y, const Tensor& x, const uint64_t*, double, int beta) {
    return accumulated(y, x, beta);
  }
};
template <>
struct WorkOf<&Kernels::add_bias> {
  static Work of(const Tensor& y, int64_t, const Tensor& bias) {
    return {.bytes = 2.0 * static_cast<double>(y.rows()) * bytes_of(bias)};
  }
};
template <>
struct WorkOf<&Kernels::bias_grad> {
  static Work of(const Tensor& dbias, const Tensor& dy, int64_t, int) {
    return {.bytes = static_cast<double>(dy.rows()) * bytes_of(dbias)};
  }
};
template <>
struct WorkOf<&Kernels::keep_bits> {
  static Work of(const uint64_t*, int64_t n, double, const RandomKey&) {
    return {.bytes = 8.0 * static_cast<double>(keep_words(n))};
  }
};

// Of the table only the rows that are named are touched.
template <>
struct WorkOf<&Kernels::gather_rows> {
  static Work of(const Tensor& y, const Tensor&, const int32_t*, double) { return {.bytes = 2.0 * bytes_of(y)}; }
};
template <>
struct WorkOf<&Kernels::scatter_add_rows> {
  static Work of(const Tensor&, const Tensor& x, const int32_t*, double, int32_t) {
    return {.bytes = 3.0 * bytes_of(x)};
  }
};
template <>
struct WorkOf<&Kernels::scatter_rows> {
  static Work of(const Tensor&, const Tensor& x, const int32_t*, double) { return {.bytes = 2.0 * bytes_of(x)}; }
};

template <>
struct WorkOf<&Kernels::cross_entropy> {
  static Work of(const Tensor&, const Tensor& logits, const int32_t*, const int32_t*, bool write_grad, const double*) {
    return {.bytes = bytes_of(logits) * (write_grad ? 2.0 : 1.0)};
  }
};
template <>
struct WorkOf<&Kernels::nag_step> {
  static Work of(const Tensor& p, const Tensor& velocity, const Tensor& g, const NagStep&, const StepDecision*) {
    return {.bytes = 2.0 * (bytes_of(p) + bytes_of(velocity)) + bytes_of(g)};
  }
};
template <>
struct WorkOf<&Kernels::adam_step> {
  static Work of(const Tensor& p, const Tensor& m, const Tensor& v, const Tensor& g, const AdamStep&,
                 const StepDecision*) {
    return {.bytes = 2.0 * (bytes_of(p) + bytes_of(m) + bytes_of(v)) + bytes_of(g)};
  }
};

class OpTimer {
 public:
  OpTimer(Profiler* profiler, int32_t op, const Work& work)
      : profiler_(profiler), op_(op), work_(work), start_(profiler->now()) {}
  ~OpTimer() { profiler_->record_op(op_, start_, work_); }
  OpTimer(const OpTimer&) = delete;
  OpTimer& operator=(const OpTimer&) = delete;

 private:
  Profiler* profiler_;
  int32_t op_;
  Work work_;
  int64_t start_;
};

template <auto Kernel, int32_t Op>
struct Timed;

template <typename R, typename... A, R (*Kernels::*Kernel)(A...), int32_t Op>
struct Timed<Kernel, Op> {
  static R call(A... args) {
    const auto kernel = inner_kernels->*Kernel;
    Profiler* profiler = Profiler::active();
    if (profiler == nullptr) return kernel(std::forward<A>(args)...);
    const OpTimer timer(profiler, Op, WorkOf<Kernel>::of(args...));
    return kernel(std::forward<A>(args)...);
  }
};

#define QN_ENTRY(name) name##_op,
enum OpNumber : int32_t { QN_EACH_KERNEL(QN_ENTRY) };
#undef QN_ENTRY

}  // namespace

const Kernels& profiled_kernels(const Kernels& inner, Profiler& profiler) {
#define QN_ENTRY(name) #name,
  static constexpr const char* kNames[] = {QN_EACH_KERNEL(QN_ENTRY)};
#undef QN_ENTRY
#define QN_ENTRY(name) .name = Timed<&Kernels::name, name##_op>::call,
  static Kernels table{
      .backend = "profiled", .memory = nullptr, .transfer = nullptr, .graphs = nullptr, QN_EACH_KERNEL(QN_ENTRY)};
#undef QN_ENTRY
  QN_ASSERT(&inner != &table);
  inner_kernels = &inner;
  table.memory = inner.memory;
  table.transfer = inner.transfer;
  table.graphs = nullptr;  // a graph has no ops to time
  profiler.name_ops(kNames);
  return table;
}

}  // namespace qn
