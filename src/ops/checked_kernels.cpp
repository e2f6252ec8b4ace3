#include "ops/checked_kernels.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <type_traits>

#include "core/finite.h"
#include "ops/host_access.h"
#include "ops/kernel_list.h"

namespace qn {
namespace {

// Kernels are plain functions: they find who looks at their results here.
thread_local CheckedKernels* current = nullptr;

constexpr const char* kNames[] = {
#define QN_ENTRY(name) #name,
    QN_EACH_KERNEL(QN_ENTRY)
#undef QN_ENTRY
};

template <auto Kernel>
constexpr size_t number_of() {
  size_t i = 0, found = 0;
#define QN_ENTRY(name)                                                                           \
  if constexpr (std::is_same_v<decltype(&Kernels::name), std::remove_const_t<decltype(Kernel)>>) \
    if (Kernel == &Kernels::name) found = i;                                                     \
  ++i;
  QN_EACH_KERNEL(QN_ENTRY)
#undef QN_ENTRY
  return found;
}

void add_tensors(std::vector<Tensor>& tensors, const Tensor& t) {
  if (t.defined() && t.elements() > 0) tensors.push_back(t);
}
/// The rows of C with what lies between them; A and B, for their names, as no more than their first element.
void add_tensors(std::vector<Tensor>& tensors, const MatmulArgs& a) {
  if (a.m == 0 || a.n == 0) return;
  tensors.push_back({a.c, {(a.m - 1) * a.ldc + a.n}, a.dtype_c});
  for (const void* operand : {a.a, a.b}) tensors.push_back({const_cast<void*>(operand), {1}, a.dtype});
}
void add_tensors(std::vector<Tensor>& tensors, const Int8MatmulArgs& a) {
  add_tensors(tensors, a.x);
  add_tensors(tensors, a.y);
}
void add_tensors(std::vector<Tensor>& tensors, const CodeMatmulArgs& a) {
  add_tensors(tensors, a.x);
  add_tensors(tensors, a.y);
}
void add_tensors(std::vector<Tensor>& tensors, const ConvEpilogue& e) {
  for (const Tensor* t : {&e.scale, &e.shift, &e.residual}) add_tensors(tensors, *t);
}
template <typename T>
void add_tensors(std::vector<Tensor>&, const T&) {}

/// Those whose first tensor is the second in another form.
template <auto Kernel>
constexpr bool makes_a_copy() {
  const auto is = [](auto other) {
    if constexpr (std::is_same_v<decltype(other), std::remove_const_t<decltype(Kernel)>>) return Kernel == other;
    return false;
  };
  return is(&Kernels::copy) || is(&Kernels::block_noise) || is(&Kernels::replace_blocks) ||
         is(&Kernels::fake_quantize) || is(&Kernels::pq_decode) || is(&Kernels::scale_rows);
}

/// Bounds of nothing are infinite.
template <auto Kernel>
constexpr bool may_be_infinite() {
  const auto is = [](auto other) {
    if constexpr (std::is_same_v<decltype(other), std::remove_const_t<decltype(Kernel)>>) return Kernel == other;
    return false;
  };
  return is(&Kernels::value_range) || is(&Kernels::range_to_grid);
}

}  // namespace

template <typename R, typename... A, R (*Kernels::*Kernel)(A...)>
struct CheckedKernels::Checked<Kernel> {
  static R call(A... args) {
    if constexpr (!std::is_void_v<R>) {
      return (current->inner_.*Kernel)(args...);
    } else {
      (current->inner_.*Kernel)(args...);
      if constexpr (may_be_infinite<Kernel>()) return;
      std::vector<Tensor> tensors;
      (add_tensors(tensors, args), ...);
      if (tensors.empty()) return;
      current->look_at(kNames[number_of<Kernel>()], tensors);
      if constexpr (makes_a_copy<Kernel>()) current->pass_name_on(tensors[0], tensors[1]);
    }
  }
};

CheckedKernels::CheckedKernels(const Kernels& inner)
#define QN_ENTRY(name) .name = Checked<&Kernels::name>::call,
    : table_{.backend = "checked",
             .memory = inner.memory,
             .transfer = inner.transfer,
             .graphs = nullptr,
             .from_codes = inner.from_codes,
             QN_EACH_KERNEL(QN_ENTRY)},
      inner_(inner) {
#undef QN_ENTRY
}

void CheckedKernels::name(const Tensor& memory, const std::string& text) {
  const auto* begin = static_cast<const std::byte*>(memory.data);
  names_[begin] = {begin + memory.bytes(), text};
}

void CheckedKernels::begin() {
  current = this;
  copies_.clear();
  last_named_.clear();
  calls_ = 0;
}

const std::string* CheckedKernels::name_of_memory(const void* place) const {
  const auto* p = static_cast<const std::byte*>(place);
  for (const Names* names : {&names_, &copies_}) {
    const auto after = names->upper_bound(p);
    if (after == names->begin()) continue;
    const auto& [begin, named] = *std::prev(after);
    if (p < named.end) return &named.text;
  }
  return nullptr;
}

void CheckedKernels::pass_name_on(const Tensor& to, const Tensor& from) {
  if (const std::string* text = name_of_memory(from.data)) {
    const auto* begin = static_cast<const std::byte*>(to.data);
    copies_[begin] = {begin + to.bytes(), *text};
  }
}

void CheckedKernels::look_at(const char* op, const std::vector<Tensor>& tensors) {
  ++calls_;
  std::vector<std::string> involved;
  for (const Tensor& t : tensors)
    if (const std::string* text = name_of_memory(t.data))
      if (std::find(involved.begin(), involved.end(), *text) == involved.end()) involved.push_back(*text);
  const std::string call = involved.empty() ? op : fmt::format("{} with {}", op, fmt::join(involved, ", "));
  for (const Tensor& t : tensors) {
    const HostView view(inner_, t);
    const std::string found = describe_non_finite(view.view());
    if (found.empty()) continue;
    const std::string place = !involved.empty() || last_named_.empty()
                                  ? ""
                                  : fmt::format(", call {} of the pass, after {}", calls_, last_named_);
    throw NonFiniteResult(fmt::format("{}{}: {}", call, place, found));
  }
  if (!involved.empty()) last_named_ = call;
}

}  // namespace qn
